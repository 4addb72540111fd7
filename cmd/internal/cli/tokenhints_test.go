package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnauthorizedHintTrustsOnlyTheRuntimeDirectory calls UnauthorizedHint with paths that a broker
// can send. The hint must contain a command with this path only if the file is in the directory
// of the broker's socket. Otherwise a false broker could make the operator send it another token.
func TestUnauthorizedHintTrustsOnlyTheRuntimeDirectory(t *testing.T) {
	args := os.Args
	defer func() { os.Args = args }()
	os.Args = []string{"keyhatchctl", "--socket", "S", "status"}
	dir := t.TempDir()
	admin, home := filepath.Join(dir, "admin"), filepath.Join(dir, "home")
	for _, path := range []string{admin, home} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{admin + "/token", home + "/token"} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{admin + "/link": home + "/token", dir + "/same": admin} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	const use, copied = "use the broker's token: keyhatchctl --socket S status --admin-token-file ", "copy the token file from the broker's host"
	for _, c := range []struct{ name, brokerFile, usedFile, socket, want string }{
		{"beside the socket", admin + "/token", "", admin + "/admin.sock", use + admin + "/token"},
		{"another path of the directory", dir + "/same/token", "", admin + "/admin.sock", use + dir + "/same/token"},
		{"in another directory", home + "/token", "", admin + "/admin.sock", copied},
		{"beside a forwarded socket", home + "/token", "", home + "/forwarded.sock", copied},
		{"a link", admin + "/link", "", admin + "/admin.sock", copied},
		{"a missing file", admin + "/none", "", admin + "/admin.sock", copied},
		{"a directory above", admin + "/../home/token", "", admin + "/admin.sock", copied},
		{"the refused file", admin + "/token", admin + "/token", admin + "/admin.sock", copied},
		{"no path", "", "", admin + "/admin.sock", copied},
	} {
		got := UnauthorizedHint(c.brokerFile, c.usedFile, c.socket)
		if !strings.HasPrefix(got, c.want) || c.want == copied && c.brokerFile != "" && strings.Contains(got, c.brokerFile) {
			t.Errorf("%s: the hint is %s; want %s", c.name, got, c.want)
		}
	}
}

// TestHintReplacesOnlyTheFlag uses a token file whose name is also another argument. Only the
// value of the flag must change in the hint.
func TestHintReplacesOnlyTheFlag(t *testing.T) {
	args := os.Args
	defer func() { os.Args = args }()
	for _, c := range []struct{ args, want string }{
		{"keyhatchctl --admin-token-file api explain api X", "keyhatchctl --admin-token-file COPY explain api X"},
		{"keyhatchctl explain api X --admin-token-file=api", "keyhatchctl explain api X --admin-token-file=COPY"},
		{"keyhatchctl --socket=api --admin-token-file api list", "keyhatchctl --socket=api --admin-token-file COPY list"},
	} {
		os.Args = strings.Fields(c.args)
		if got := UnauthorizedHint("", "api", "/run/keyhatch/admin/admin.sock"); !strings.HasSuffix(got, ": "+c.want) {
			t.Errorf("the hint for %s is %s; want %s", c.args, got, c.want)
		}
	}
}

// TestHintForForwardedSocket checks the hint for a socket with a path that no broker chooses. Such a
// path can be right, if ssh forwards the socket.
func TestHintForForwardedSocket(t *testing.T) {
	const want = "if ssh forwards this socket, start ssh again; otherwise correct --socket: "
	if got := StartBrokerHint("/home/dev/.keyhatch-host.sock", true); !strings.HasPrefix(got, want) {
		t.Errorf("the hint is %s", got)
	}
}
