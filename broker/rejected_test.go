package broker

import (
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestEveryAdminOperationIsRecorded checks that the table of recorded operations contains every
// operation of the admin socket, except those that change nothing and return no name of a secret.
func TestEveryAdminOperationIsRecorded(t *testing.T) {
	notRecorded := map[schema.Op]bool{
		schema.OpPush:   true, // has the event push.rejected
		schema.OpAuth:   true, // has the event auth.failed
		schema.OpStatus: true,
		schema.OpEvents: true,
		schema.OpPing:   true,
	}
	for _, op := range schema.AdminOperations {
		if _, recorded := acceptedEvents[op.Op]; recorded == notRecorded[op.Op] {
			t.Errorf("%s must be either in acceptedEvents or in the list of this test", op.Op)
		}
	}
}
