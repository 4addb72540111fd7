package endpoint

import (
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

func TestCallerIsIdentified(t *testing.T) {
	for caller, want := range map[Caller]bool{
		{UID: 0, PID: 1}:                    true,
		{UID: 1000, PID: 7}:                 true,
		{UID: schema.UnmappedUID, PID: 7}:   false,
		{UID: 1000, PID: 0}:                 true,
		{UID: schema.UnmappedUID, GID: 100}: false,
	} {
		if caller.IsIdentified() != want {
			t.Errorf("%+v: IsIdentified is %v", caller, !want)
		}
	}
}
