package keyring

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkPush measures the time from the parsing of a request line until the keyring has the new
// current snapshot. Each push changes all values.
func BenchmarkPush(b *testing.B) {
	const unusual = `{"unknown":0,`
	bundles := strings.ReplaceAll(pushRequest(1000, 900), `:"x`, `:{"username":"x","password":"x`)
	bundles = strings.ReplaceAll(bundles, `x","S`, `x"},"S`)
	for name, request := range map[string]string{
		"10 secrets":                 pushRequest(10, 40),
		"5000 secrets":               pushRequest(5000, 40),
		"1 secret, 1 MB":             pushRequest(1, 1_000_000),
		"1000 secrets, 1 MB":         pushRequest(1000, 1000),
		"100 secrets, 1 MB":          pushRequest(100, 10_000),
		"100 secrets, 1 MB, unusual": unusual + pushRequest(100, 10_000)[1:],
		"100 binary secrets, 1 MB":   strings.Replace(pushRequest(100, 10_000), `"secrets"`, `"secrets_b64"`, 1),
		"100 keys with line ends":    strings.ReplaceAll(pushRequest(100, 10_000), strings.Repeat("x", 66), strings.Repeat("x", 64)+`\n`),
		"1000 bundles, 1 MB":         strings.Replace(bundles, `"}}`, `"}}}`, 1),
	} {
		b.Run(name, func(b *testing.B) {
			k := New()
			defer k.Clear()
			lines := [][]byte{[]byte(request), []byte(strings.ReplaceAll(request, "x", "y"))}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				request, ok := k.ParseUsual(lines[i%2])
				if !ok {
					var err error
					if request, err = Parse(lines[i%2]); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := k.Push(request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func pushRequest(secrets, length int) string {
	var members []string
	for i := range secrets {
		members = append(members, fmt.Sprintf(`"S%d":%q`, i, strings.Repeat("x", length)))
	}
	return `{"op":"push-creds","secrets":{` + strings.Join(members, ",") + `}}`
}
