package broker

import (
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestEveryAdminOperationIsRecorded checks that every op of the admin socket is either in
// acceptedEvents, so that recordRejected records refusals of the op, or in the list notRecorded.
// notRecorded contains ops whose refusals have their own event, and ops that change nothing and do
// not reveal which secrets exist or may be fetched.
func TestEveryAdminOperationIsRecorded(t *testing.T) {
	notRecorded := map[schema.Op]bool{
		schema.OpPush:   true, // a refusal has the event push.rejected
		schema.OpAuth:   true, // a refusal has the event auth.failed
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
