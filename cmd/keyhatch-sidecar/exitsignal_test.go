package main

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
)

// TestSignalsEndSidecarAndClearBroker sends each signal of a terminal or a service manager to a sidecar
// that runs with --on-exit clear. The sidecar must remove the secrets from the broker, and must print no
// stack trace.
func TestSignalsEndSidecarAndClearBroker(t *testing.T) {
	h := newTestHost(t, 0)
	writeStoreFile(t, h.dir+"/store/A", "x")
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			sidecar := h.startSidecar("--store", "dir:"+h.dir+"/store", "--on-exit", "clear")
			sidecar.waitForLine("secrets=1")
			if err := sidecar.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			for sidecar.stderr.Scan() {
				if strings.Contains(sidecar.stderr.Text(), "goroutine") {
					t.Errorf("the sidecar printed %q", sidecar.stderr.Text())
				}
			}
			if err := sidecar.cmd.Wait(); err != nil {
				t.Errorf("the sidecar ended with the error %v", err)
			}
			admin, err := client.DialAdminWithToken(context.Background(), h.adminSocket(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			if status, err := admin.Status(context.Background()); err != nil || status.SecretCount != 0 {
				t.Errorf("the broker has %d secrets, error %v", status.SecretCount, err)
			}
		})
	}
}

// TestSidecarContinuesIfHangupIsIgnored starts a sidecar that ignores SIGHUP, as nohup does. After
// a SIGHUP, the sidecar must still push changes of the store.
func TestSidecarContinuesIfHangupIsIgnored(t *testing.T) {
	h := newTestHost(t, 0)
	sidecar := h.start("sh", "-c", `trap "" HUP; exec "$0" "$@"`, h.dir+"/keyhatch-sidecar", "run", "--socket", h.adminSocket(), "--store", "dir:"+h.dir+"/store")
	sidecar.waitForLine("secrets=0")
	if err := sidecar.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	writeStoreFile(t, h.dir+"/store/A", "x")
	sidecar.waitForLine("secrets=1")
}
