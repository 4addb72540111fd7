package project

import (
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/schema"
)

// watch answers a watch request. Then it writes lines with the names of allowed secrets that were
// added, changed, or removed, until the connection must end. It returns the last reply on the
// connection.
//
// The secrets can change several times while watch writes a line. The next line then contains
// the names of all these changes. Therefore a slow client gets fewer lines, and the broker needs
// no additional memory for the slow client.
func watch(s *endpoint.Session, secrets *allowedSecrets) endpoint.Reply {
	// After a watch request, the client must not send anything. If it does, watch refuses the
	// input with a protocol error.
	input, stop := s.AwaitInput()
	defer stop()
	// Call changes before versions. Then a change between the two calls closes a channel, so that
	// the loop notices the change.
	changed, replaced := secrets.changes()
	reported, generation := secrets.versions()
	line := endpoint.Answer(schema.WatchResponse{OK: true, Generation: generation})
	for s.Write(line) {
		var names []schema.SecretName
		for len(names) == 0 {
			select {
			case <-changed:
			case <-replaced:
			case <-s.Draining():
				return endpoint.HangUp()
			case err := <-input:
				if err != nil {
					return endpoint.HangUp()
				}
				refusal := endpoint.Refuse(schema.CodeProtocolError, "watch: no other request is allowed on this connection")
				refusal.End = true
				return refusal
			}
			changed, replaced = secrets.changes()
			var current versions
			current, generation = secrets.versions()
			names = reported.changedNames(current)
			reported = current
		}
		line = endpoint.Answer(schema.ChangedEvent{Event: schema.WatchEventChanged, Generation: generation, Names: names})
	}
	return endpoint.HangUp()
}
