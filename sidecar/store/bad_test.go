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
		t.Errorf("only %d bad stores; the table should have at least 40", len(all))
	}
	for _, c := range all {
		_, err := c.Create(t.TempDir()).Read(context.Background())
		if err == nil {
			t.Errorf("%.60q: Read returned no error", c.Name)
			continue
		}
		for _, want := range c.Wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.60q: the error does not contain %[3]q:\n%.300[2]v", c.Name, err, want)
			}
		}
		// The error can contain the command line, because the operator wrote it. Check the
		// rest of the error.
		if text := strings.ReplaceAll(err.Error(), c.Name, ""); strings.Contains(strings.ReplaceAll(text, strings.ReplaceAll(c.Name, `"`, `\"`), ""), storetest.Tripwire) {
			t.Errorf("%.60q: the error contains content of the store: %v", c.Name, err)
		}
	}
}
