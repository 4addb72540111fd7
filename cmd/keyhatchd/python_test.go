package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// pythonClient is a client in Python for protocol version 2. It uses one connection for each
// request, reads each answer with one recv, and sends fields that the broker does not know.
const pythonClient = `
import json, socket, sys
def ask(path, request):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.sendall(json.dumps(request).encode() + b"\n")
    answer = json.loads(s.recv(65536))
    s.close()
    return answer
admin, project, value = sys.argv[1:]
assert ask(admin, {"op": "ping", "project": "x"})["protocol_version"] == 2
r = ask(admin, {"op": "push-creds", "client": "py", "secrets": {
    "A": value, "MISSING": {"user": "u", "pass": value + "\"\\é\n"}}})
assert r["ok"] and r["secret_count"] == 2 and r["loaded_at"].endswith("Z"), r
assert ask(project, {"op": "ping", "project": "x"})["project"] == "api"
assert ask(project, {"op": "get", "name": "A", "ttl": 5}) == {"ok": True, "value": value}
r = ask(project, {"op": "get", "name": "MISSING"})
assert r["bundle"] and json.loads(r["value"]) == {"user": "u", "pass": value + "\"\\é\n"}, r
assert " " not in r["value"].split("TRIP")[0], r
assert ask(project, {"op": "get", "name": "B"})["code"] == "denied"
assert ask(project, {"op": "info", "verbose": True})["allowlist"] == ["A", "MISSING"]
assert ask(admin, {"op": "clear-creds", "project": None}) == {"ok": True}
assert ask(project, {"op": "get", "name": "A"})["code"] == "not_loaded"
`

func TestPythonClientUsesBothSockets(t *testing.T) {
	python, err := exec.LookPath("python3")
	testenv.Require(t, err == nil, "python3 is not installed")
	d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
	registerProject(t, d)
	cmd := exec.Command(python, "-", d.adminSocket(), d.projectSocket("api"), tripwire)
	cmd.Stdin = strings.NewReader(pythonClient)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
