package schema

// Operation contains the name of an op, and the types of its request and of its response.
// Request and Response are zero values of these types. Every op can also return an
// ErrorResponse.
type Operation struct {
	Op       Op
	Request  any
	Response any
}

// AdminOperations lists the ops of the admin socket.
var AdminOperations = []Operation{
	{OpPush, PushRequest{}, PushResponse{}},
	{OpClear, ClearRequest{}, OKResponse{}},
	{OpRegister, RegisterRequest{}, RegisterResponse{}},
	{OpUnregister, UnregisterRequest{}, OKResponse{}},
	{OpReload, ReloadRequest{}, ReloadResponse{}},
	{OpInspect, InspectRequest{}, InspectResponse{}},
	{OpList, ListRequest{}, ListResponse{}},
	{OpStatus, StatusRequest{}, StatusResponse{}},
	{OpExplain, ExplainRequest{}, ExplainResponse{}},
	{OpEvents, EventsRequest{}, EventsResponse{}},
	{OpPing, PingRequest{}, AdminPingResponse{}},
	{OpAuth, AuthRequest{}, OKResponse{}},
}

// ProjectOperations lists the ops of a project socket.
var ProjectOperations = []Operation{
	{OpGet, GetRequest{}, GetResponse{}},
	{OpGetMany, GetManyRequest{}, GetManyResponse{}},
	{OpInfo, InfoRequest{}, InfoResponse{}},
	{OpWatch, WatchRequest{}, WatchResponse{}},
	{OpPing, PingRequest{}, ProjectPingResponse{}},
}

// StreamEvents lists the ops that send more lines after the response, until the
// connection ends. Each value of the map is the zero value of the type of these lines. For
// events, this type contains only the fields that all audit events have.
var StreamEvents = map[Op]any{
	OpWatch:  ChangedEvent{},
	OpEvents: EventHeader{},
}
