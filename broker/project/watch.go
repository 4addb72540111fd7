package project

import (
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/schema"
)

// watch answers a watch request. Then it writes a line after each change of the secrets
// that the project can fetch, until the connection ends. It returns the last reply on the
// connection.
//
// While a line is being written, changes are collected for the next line. Therefore a
// slow client gets fewer lines, and needs no additional memory in the broker.
func watch(s *endpoint.Session, secrets *allowedSecrets) endpoint.Reply {
	// After a watch request, the client may only end the connection. Any other input is a
	// protocol error.
	input, stop := s.AwaitInput()
	defer stop()
	// Get the channels before the versions. Then a change between the two calls closes a
	// channel, so that the loop notices the change.
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
