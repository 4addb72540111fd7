package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

func TestReadRefusesBadStores(t *testing.T) {
	all := storetest.BadStores()
	if len(all) < 40 {
		t.Errorf("BadStores returned only %d stores; want at least 40", len(all))
	}
	for _, c := range all {
		_, err := c.Create(t.TempDir()).Read(context.Background(), nil)
		if err == nil {
			t.Errorf("bad store %.60q: Read returned no error", c.Name)
			continue
		}
		for _, want := range c.Wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("bad store %.60q: the error does not contain %[3]q:\n%.300[2]v", c.Name, err, want)
			}
		}
		if strings.Contains(err.Error(), storetest.Tripwire) {
			t.Errorf("bad store %.60q: the error contains content of the store: %v", c.Name, err)
		}
	}
}
