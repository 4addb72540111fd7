// Command keyhatchd is the broker daemon. It stores secrets in memory and serves them to
// project containers. Each project can fetch only the secrets on the allowlist of its
// manifest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// drainTimeout is the maximum time that a stopping broker waits for the clients that have sent
// requests. It is longer than schema.WriteTimeout, so that the broker can complete a response
// that it is writing.
const drainTimeout = schema.WriteTimeout + time.Second

func main() {
	if rundir.IsChild() { // a broker started this process to use directories that containers can change
		if secmem.Harden() == nil {
			rundir.RunChild()
		}
		return
	}
	cli.Exit(cli.Run(newRootCommand()))
}

func newRootCommand() *cobra.Command {
	s := newSettings()
	var config string
	var checkConfig bool
	c := &cobra.Command{
		Use:   "keyhatchd",
		Short: "Serve secrets from memory to project containers",
		Long: `keyhatchd is the broker. The sidecar pushes all secrets to keyhatchd through the admin
socket. keyhatchd stores the secrets only in its memory, and locks this memory if the
limit on locked memory is high enough. Each registered project has its own socket and
can fetch only the secrets on the allowlist of its manifest.

  DIR/admin/admin.sock             mode 0660; for the sidecar and keyhatchctl
  DIR/projects/NAME/broker.sock    socket of project NAME, whose container must mount
                                   the directory DIR/projects/NAME (a link)

DIR is the directory in --runtime-dir. The default of DIR is /run/keyhatch for root,
and $XDG_RUNTIME_DIR/keyhatch for other users. If keyhatchd runs as root and the group
keyhatch exists, the admin socket belongs to this group.

On SIGTERM and SIGINT, keyhatchd answers the pending requests, wipes the secrets,
and exits. If a request waits for a secret when keyhatchd stops, keyhatchd ends the
connection without an answer, so that the client can send the request to the next
keyhatchd. When keyhatchd stops, it does not remove its socket files, because the next
keyhatchd uses or replaces them. On SIGHUP, keyhatchd reads the declared projects
again, but not its settings.

A YAML file (--config) can contain a setting for each flag below except --config and
--check-config. The name of a setting is the name of its flag, with _ instead of -.
A flag overrides the same setting in the file.

With the systemd units of keyhatch, the sockets survive a restart of keyhatchd:
keyhatch.socket creates the admin socket, and keyhatchd stores the project sockets in
the descriptor store of its service.`,
		Example: `  keyhatchd
  keyhatchd --runtime-dir /tmp/kh --audit file:/tmp/kh-audit.log
  keyhatchd --check-config`,
		RunE: func(c *cobra.Command, _ []string) error {
			sources, err := s.resolve(config)
			if err != nil {
				return err
			}
			if checkConfig {
				return s.print(c.OutOrStdout(), sources)
			}
			return run(c.Context(), s)
		},
	}
	c.Flags().AddFlagSet(s.flags)
	c.Flags().StringVar(&config, "config", "", "`FILE` with settings in YAML (default for root: "+systemConfigFile+", if it exists)")
	c.Flags().BoolVar(&checkConfig, "check-config", false, "print the effective settings and the declared projects, and exit")
	return c
}

func run(ctx context.Context, s *settings) error {
	// Call secmem.Harden before the process can receive a secret.
	if err := secmem.Harden(); err != nil {
		return err
	}
	log, flush := cli.NewDaemonLogger()
	defer flush()
	auditPath, auditOut := "", io.Writer(os.Stdout)
	if path, isFile := strings.CutPrefix(s.audit, "file:"); isFile {
		auditPath = path
	} else if s.audit == "journal" {
		auditOut = journalWriter{}
	}
	events, err := audit.Open(audit.Config{Path: auditPath, Out: auditOut, Required: s.auditRequired, Log: log})
	if err != nil {
		return fmt.Errorf("cannot open the audit log: %w", err)
	}
	defer events.Close()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	server, err := broker.New(broker.Config{
		RuntimeDir: s.runtimeDir, AdminGID: adminGID(), Audit: events, Log: log, Version: cli.Version,
		RequestRate: s.requestRate, RefusalRate: s.refusalRate,
		ProjectsDir: s.projectsDir, AdminTokenFile: s.tokenFile, Inherited: activation.Files(true), NotifySocket: os.Getenv("NOTIFY_SOCKET"),
	})
	if errors.Is(err, broker.ErrRuntimeDirBusy) {
		return &cli.Error{Err: err, Hint: "stop the other keyhatchd, or choose another directory with --runtime-dir"}
	}
	if err != nil {
		return err
	}
	log.Info("serving", "admin_socket", server.AdminSocket(), "admin_token_required", s.tokenFile != "")
	sd.SdNotify(false, sd.SdNotifyReady+"\n"+statusNotification(server))
	notifyCtx, stopNotifying := context.WithCancel(ctx)
	var notifier sync.WaitGroup
	notifier.Go(func() { notifySystemd(notifyCtx, server, log) })
	reloadOnHangup(ctx, server, hangup)
	sd.SdNotify(false, sd.SdNotifyStopping)
	log.Info("stopping")
	stopNotifying()
	notifier.Wait()
	drainCtx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	server.Shutdown(drainCtx)
	return nil
}

// reloadOnHangup reads the declared projects again after each SIGHUP. It returns when ctx
// ends.
func reloadOnHangup(ctx context.Context, server *broker.Server, hangup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			sd.SdNotify(false, sd.SdNotifyReloading+"\n"+sd.SdNotifyMonotonicUsec())
			server.ApplyDeclarations() // ApplyDeclarations logs its errors
			sd.SdNotify(false, sd.SdNotifyReady+"\n"+statusNotification(server))
		}
	}
}

// adminGID returns the ID of the group keyhatch, to which the admin socket will belong. If the
// process is not root or cannot find the group, adminGID returns -1, and the admin socket will
// belong to the group of the process.
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
