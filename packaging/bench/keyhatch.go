package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// requestRate is the limit of requests per second that the benchmark sets. No load reaches this
// limit, but the broker checks the limit for each request.
const requestRate = 100_000_000

// project is the name of the project that gets secrets.
const project = "bench"

// A keyhatch is a running keyhatchd with an admin connection.
type keyhatch struct {
	contender
	dir        string // contains the audit log
	runtimeDir string
	admin      *client.Admin
	sent       int // secrets that the benchmark has requested
}

func newKeyhatch(dir, runtimeDir string) *keyhatch {
	k := &keyhatch{dir: dir, runtimeDir: runtimeDir}
	k.name, k.socket, k.encodePush = keyhatchd, k.projectSocket(project), encodePush
	k.pushSocket = filepath.Join(k.runtimeDir, "admin", "admin.sock")
	return k
}

// startKeyhatch starts keyhatchd with its default settings, except for the request limit. Its
// audit events go to a file.
func (b *bench) startKeyhatch(dir string, cpu int) (*keyhatch, error) {
	k := newKeyhatch(dir, filepath.Join(dir, "run"))
	return k, k.start(cpu, exec.Command(b.keyhatchd, k.arguments("")...))
}

// start starts the command and waits until the broker answers a first request.
func (k *keyhatch) start(cpu int, cmd *exec.Cmd) (err error) {
	began := time.Now()
	if k.process, err = startCommand(cpu, cmd); err != nil {
		return err
	}
	err = k.process.waitFor(func() (err error) {
		if k.admin, err = client.DialAdmin(context.Background(), k.pushSocket); err == nil {
			_, err = k.admin.Ping(context.Background())
		}
		return err
	})
	k.ready = time.Since(began)
	return err
}

func (k *keyhatch) arguments(projectsDir string) []string {
	return []string{"--config", os.DevNull, "--runtime-dir", k.runtimeDir, "--projects-dir", projectsDir, "--audit", "file:" + k.auditLog(), "--request-rate", strconv.Itoa(requestRate)}
}

// pushAndRegister pushes the secrets of the benchmark and registers the project that gets them.
func (k *keyhatch) pushAndRegister() error {
	names, values := secrets()
	many := schema.GetManyRequest{Op: schema.OpGetMany}
	found := []string{}
	for i, name := range names {
		k.get = append(k.get, exchange{encode(schema.GetRequest{Op: schema.OpGet, Name: schema.SecretName(name)}), getReply(values[i])})
		many.Names = append(many.Names, schema.SecretName(name))
		found = append(found, fmt.Sprintf(`"%s":{"value":"%s"}`, name, values[i]))
	}
	k.getMany = []exchange{{encode(many), fmt.Appendf(nil, `{"ok":true,"generation":1,"secrets":{%s},"errors":{}}`+"\n", strings.Join(found, ","))}}
	if err := k.pushSecrets(); err != nil {
		return err
	}
	return k.register(project)
}

func (k *keyhatch) pushSecrets() error {
	_, err := k.admin.Push(context.Background(), encodePush(secrets()))
	return err
}

func getReply(value string) []byte { return []byte(`{"ok":true,"value":"` + value + `"}` + "\n") }

func encodePush(names, values []string) []byte {
	push := schema.PushRequest{Op: schema.OpPush, Secrets: map[schema.SecretName]schema.Value{}}
	for i, name := range names {
		push.Secrets[schema.SecretName(name)] = schema.Value{Text: values[i]}
	}
	return encode(push)
}

func (k *keyhatch) auditLog() string { return filepath.Join(k.dir, "audit.log") }

func (k *keyhatch) projectSocket(project string) string {
	return filepath.Join(k.runtimeDir, "projects", project, "broker.sock")
}

func encode(request any) []byte {
	line, err := wire.Encode(request)
	if err != nil {
		panic(err) // impossible, because every request of the benchmark is valid
	}
	return line
}

func manifestOf(project string) string {
	text := "schema_version: 1\nproject: " + project + "\nsecrets:\n"
	names, _ := secrets()
	for _, name := range names {
		text += "  " + name + ":\n"
	}
	return text
}

func (k *keyhatch) stop() {
	if k.admin != nil {
		k.admin.Close()
	}
	k.process.stop()
}

func (k *keyhatch) register(project string) error {
	manifest := manifestOf(project)
	_, err := k.admin.Register(context.Background(), schema.RegisterRequest{
		Name: schema.ProjectName(project), ProjectPath: "/nowhere/" + project, Manifest: &manifest, AllowUIDs: []uint32{uint32(os.Geteuid())},
	})
	return err
}

// checkCounts stops the broker. It returns an error if the broker's count of fetched secrets, or
// the sum of the counts in the audit log, differs from the number of secrets that the clients
// got. It also returns an error if the broker lost audit events.
func (k *keyhatch) checkCounts() error {
	status, err := k.admin.Status(context.Background())
	if err != nil {
		return err
	}
	k.process.stop()
	text, err := os.ReadFile(k.auditLog())
	if err != nil {
		return err
	}
	logged, counted := 0, 0
	for line := range bytes.Lines(text) {
		var event struct{ Allowed int }
		if err := json.Unmarshal(line, &event); err != nil {
			return err
		}
		logged += event.Allowed
	}
	for _, p := range status.Projects {
		counted += int(p.Counts.Allowed)
	}
	if counted != k.sent || logged != k.sent || status.AuditDropped != 0 {
		return fmt.Errorf("the clients requested %d secrets, keyhatchd counted %d secrets, and the audit log contains %d secrets; keyhatchd lost %d audit events, want 0", k.sent, counted, logged, status.AuditDropped)
	}
	return nil
}
