package cli

import (
	"os"
	"testing"
)

// TestRerunAsSelectsSameBroker calls RerunAs for root and for another user. The returned command
// must use the given admin socket. It may omit --socket only for root and SystemSocket, because
// SystemSocket is the default of root only.
func TestRerunAsSelectsSameBroker(t *testing.T) {
	args := os.Args
	defer func() { os.Args = args }()
	const other = "/run/user/1000/keyhatch/admin/admin.sock"
	for _, c := range []struct {
		args   []string
		uid    uint32
		socket string
		want   string
	}{
		{[]string{"keyhatchctl", "status"}, 0, SystemSocket, "sudo keyhatchctl status"},
		{[]string{"keyhatchctl", "status"}, 0, other, "sudo keyhatchctl status --socket " + other},
		{[]string{"keyhatchctl", "status"}, 1000, other, "sudo -u '#1000' keyhatchctl status --socket " + other},
		{[]string{"keyhatchctl", "status"}, 1000, SystemSocket, "sudo -u '#1000' keyhatchctl status --socket " + SystemSocket},
		{[]string{"keyhatchctl", "--socket=" + SystemSocket, "status"}, 1000, SystemSocket, "sudo -u '#1000' keyhatchctl --socket=" + SystemSocket + " status"},
	} {
		os.Args = c.args
		if got := RerunAs(c.uid, c.socket); got != c.want {
			t.Errorf("RerunAs(%d, %s) returned %s; want %s", c.uid, c.socket, got, c.want)
		}
	}
}
