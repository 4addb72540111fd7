package keyring

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkPush measures a push whose request is already in locked memory.
func BenchmarkPush(b *testing.B) {
	for name, request := range map[string]string{
		"10 secrets":        pushRequest(10, 40),
		"5000 secrets":      pushRequest(5000, 40),
		"100 secrets, 1 MB": pushRequest(100, 10_000),
	} {
		b.Run(name, func(b *testing.B) {
			k := New()
			defer k.Clear()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				var buffer LineBuffer
				memory, err := buffer.Grow([]byte(request), len(request))
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := k.Push(buffer.Take(), memory[:len(request)]); err != nil {
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
