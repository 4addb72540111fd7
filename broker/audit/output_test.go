package audit

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestLogContinuesAfterIncompleteLine opens log files that end with an incomplete line, end with
// a complete line, or are empty. A line is incomplete if an earlier broker was killed during a
// write or the file system was full. The new event must be on a line of its own.
func TestLogContinuesAfterIncompleteLine(t *testing.T) {
	const whole = `{"event":"earlier"}` + "\n"
	for name, content := range map[string]string{"incomplete": whole + `{"eve`, "complete": whole, "empty": ""} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			a, err := Open(Config{Path: path, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			Record(a, schema.BrokerStarted{EventHeader: Header(schema.EventBrokerStarted), ProtocolVersion: 2})
			a.Close()
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			added, ok := strings.CutPrefix(string(after), content)
			if content != "" && !strings.HasSuffix(content, "\n") {
				added, ok = strings.CutPrefix(added, "\n")
			}
			if !ok || !strings.HasPrefix(added, "{") || strings.Count(added, "\n") != 1 {
				t.Errorf("the log contains %q", after)
			}
		})
	}
}
