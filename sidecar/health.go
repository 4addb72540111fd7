package sidecar

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// CheckHealth checks that the store is good and that the broker has the names it
// has, and returns how many. It does not compare values: the broker does not return
// them.
func CheckHealth(ctx context.Context, source store.Store, socket string) (count int, err error) {
	set, err := source.Read(ctx)
	if err != nil {
		return 0, fmt.Errorf("the store cannot be used: %w", err)
	}
	conn := connection{socket: socket}
	status, err := conn.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.close()
	if status.Generation == 0 {
		return 0, errors.New("the broker holds nothing: it restarted or was cleared, and nothing was pushed since")
	}
	var names []schema.SecretName
	if err := conn.call(func(admin *client.Admin) (err error) {
		names, err = admin.List(ctx)
		return err
	}); err != nil {
		return 0, err
	}
	pushed := map[schema.SecretName]bool{}
	for _, name := range names {
		pushed[name] = true
	}
	missing := 0
	for name := range set {
		if !pushed[name] {
			missing++
		}
	}
	if missing > 0 || len(set) != len(names) {
		return 0, fmt.Errorf("the store has %d secrets, the broker %d, and %d of the store's are missing there", len(set), len(names), missing)
	}
	return len(set), nil
}
