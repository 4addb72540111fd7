// Command keyhatchd is keyhatch's broker: it holds secrets in memory and gives
// each project container what its manifest allows.
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
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// drainTimeout bounds a stop: longer than any response may take.
const drainTimeout = schema.WriteTimeout + time.Second

func main() { os.Exit(cli.Run(newRootCommand())) }

func newRootCommand() *cobra.Command {
	s := newSettings()
	var config string
	var checkConfig bool
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
SIGINT answer what has been asked, remove the sockets and wipe the memory.

The settings below can stand in a YAML file too, with _ for -; the command line
wins. SIGHUP reads the declared projects again, not the settings.

Under systemd the listeners come by name from keyhatch.socket and from the
service's descriptor store, which keeps them through a restart.`,
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
	c.Flags().StringVar(&config, "config", "", "the file of settings (default for root: "+systemConfigFile+", where it is)")
	c.Flags().BoolVar(&checkConfig, "check-config", false, "say which settings and declared projects are in force, and end")
	return c
}

func run(ctx context.Context, s *settings) error {
	// Before any secret can come in.
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
		return fmt.Errorf("opening the audit log: %w", err)
	}
	defer events.Close()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	server, err := broker.New(broker.Config{
		RuntimeDir: s.runtimeDir, AdminGID: adminGID(), Audit: events, Log: log, Version: cli.Version,
		RequestRate: s.requestRate, RefusalRate: s.refusalRate,
		ProjectsDir: s.projectsDir, Inherited: activation.Files(true), NotifySocket: os.Getenv("NOTIFY_SOCKET"),
	})
	if errors.Is(err, broker.ErrRuntimeDirBusy) {
		return &cli.Error{Err: err, Hint: "stop the other one, or choose another --runtime-dir"}
	}
	if err != nil {
		return err
	}
	log.Info("serving", "admin_socket", server.AdminSocket())
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

// reloadOnHangup reads the declared projects again on each SIGHUP, until ctx
// ends.
func reloadOnHangup(ctx context.Context, server *broker.Server, hangup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			sd.SdNotify(false, sd.SdNotifyReloading+"\n"+sd.SdNotifyMonotonicUsec())
			server.ApplyDeclarations() // logs errors
			sd.SdNotify(false, sd.SdNotifyReady+"\n"+statusNotification(server))
		}
	}
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
