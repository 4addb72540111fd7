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
		t.Errorf("only %d bad stores", len(all))
	}
	for _, c := range all {
		_, err := c.Create(t.TempDir()).Read(context.Background())
		if err == nil {
			t.Errorf("%.60q: taken", c.Name)
			continue
		}
		for _, want := range c.Wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.60q: %.300v\ndoes not say %q", c.Name, err, want)
			}
		}
		// A command's own text is the operator's; all else is checked.
		if text := strings.ReplaceAll(err.Error(), c.Name, ""); strings.Contains(strings.ReplaceAll(text, strings.ReplaceAll(c.Name, `"`, `\"`), ""), storetest.Tripwire) {
			t.Errorf("%.60q: the error holds content: %v", c.Name, err)
		}
	}
}
