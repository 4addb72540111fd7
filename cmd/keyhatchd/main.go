// Command keyhatchd is keyhatch's broker: it holds secrets in memory and gives
// each project container what its manifest allows.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// drainTimeout bounds a stop: longer than any response may take.
const drainTimeout = schema.WriteTimeout + time.Second

func main() { os.Exit(cli.Run(command())) }

type options struct {
	runtimeDir  string
	audit       string
	requestRate float64
	refusalRate float64
}

func command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "keyhatchd",
		Short: "Hold secrets in memory and serve each project what its manifest allows",
		Long: `keyhatchd is the broker. It takes the whole set of secrets from the sidecar over
its admin socket, keeps it in locked memory and nowhere else, and serves each
registered project over a socket of the project's own.

  DIR/admin/admin.sock             mode 0660; the sidecar and keyhatchctl use it
  DIR/projects/NAME/broker.sock    mount the directory NAME into one container

As root, DIR is /run/keyhatch and the admin socket belongs to group keyhatch,
where there is one; otherwise DIR is $XDG_RUNTIME_DIR/keyhatch. SIGTERM and
SIGINT answer what has been asked, remove the sockets and wipe the memory.`,
		Example: `  keyhatchd
  keyhatchd --runtime-dir /tmp/kh --audit file:/tmp/kh-audit.log`,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.runtimeDir, "runtime-dir", "", "directory of the sockets, at most 70 bytes or so")
	f.StringVar(&o.audit, "audit", "stdout", "where audit events go: stdout, or file:PATH (opened anew when rotated)")
	f.Float64Var(&o.requestRate, "request-rate", schema.DefaultRequestRate, "requests a second of one project, 0 for no limit; not enforced yet")
	f.Float64Var(&o.refusalRate, "refusal-rate", schema.DefaultRefusalRate, "refusals a second of one project, 0 for no limit; not enforced yet")
	return c
}

func run(ctx context.Context, o options) error {
	if o.requestRate < 0 || o.refusalRate < 0 {
		return cli.Usage("a rate must be 0, for no limit, or more")
	}
	auditPath := ""
	if path, isFile := strings.CutPrefix(o.audit, "file:"); isFile && path != "" {
		auditPath = path
	} else if o.audit != "stdout" {
		return cli.Usage("--audit must be stdout or file:PATH")
	}
	dir := o.runtimeDir
	if dir == "" {
		dir = cli.DefaultRuntimeDir()
	}
	if dir == "" {
		return cli.Usage("neither --runtime-dir nor XDG_RUNTIME_DIR says where the sockets shall be")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	// Before any secret can come in.
	if err := secmem.Harden(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	audit, err := broker.OpenAudit(auditPath, os.Stdout, log)
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	defer audit.Close()
	server, err := broker.New(broker.Config{
		RuntimeDir: dir, AdminGID: adminGID(), Audit: audit, Log: log, Version: cli.Version,
	})
	if errors.Is(err, broker.ErrRuntimeDirBusy) {
		return &cli.Failure{Err: err, Hint: "stop the other one, or choose another --runtime-dir"}
	}
	if err != nil {
		return err
	}
	log.Info("serving", "admin_socket", server.AdminSocket())
	<-ctx.Done()
	log.Info("stopping")
	stopping, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	server.Shutdown(stopping)
	return nil
}

// adminGID is the group that owns the admin socket: keyhatch, for root and
// where there is such a group.
func adminGID() int {
	if os.Geteuid() != 0 {
		return -1
	}
	group, err := user.LookupGroup("keyhatch")
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return -1
	}
	return gid
}
