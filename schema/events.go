package schema

import "time"

// EventsRequest requests the recent audit events, and a line for each new event. The client
// must not send another request on the same connection.
type EventsRequest struct {
	Op Op `json:"op"`
	// Since is the time of the last event that the client has received. The broker sends the
	// events that follow this event in the audit log. If no event has exactly this time, the
	// broker begins with the first event that is later than Since. If Since is absent, the
	// broker sends all events that are still in its memory, which are at most 1024 events.
	Since time.Time `json:"since,omitzero"`
}

// EventsResponse confirms that the stream has started. Each later line on the connection is
// an audit event, whose field event determines its other fields.
type EventsResponse struct {
	// OK is always true in this response.
	OK bool `json:"ok"`
	// InstanceID is the instance_id of the broker. If the instance_id of an earlier stream
	// was different, the broker has restarted, and its memory contains only events since
	// its start.
	InstanceID string `json:"instance_id"`
	// Recent is the number of recent events that the broker sends first, because they were
	// written before the broker started the stream. If the broker replaces some of these
	// events with an events.missed line, the number includes the count of this line.
	Recent int `json:"recent"`
	// First is the number of the first event that the broker sends. The broker numbers its
	// events in the order of the audit log, and begins with 1 at its start. Events that the
	// client missed have numbers too.
	First uint64 `json:"first,omitzero"`
}
