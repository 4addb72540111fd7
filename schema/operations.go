package schema

// Operation ties an op to the types of its request and its response, each
// given as a zero value. Every op can answer an ErrorResponse instead.
type Operation struct {
	Op       Op
	Request  any
	Response any
}

// AdminOperations are the ops of the admin socket.
var AdminOperations = []Operation{
	{OpPush, PushRequest{}, PushResponse{}},
	{OpClear, ClearRequest{}, OKResponse{}},
	{OpRegister, RegisterRequest{}, RegisterResponse{}},
	{OpUnregister, UnregisterRequest{}, OKResponse{}},
	{OpReload, ReloadRequest{}, ReloadResponse{}},
	{OpList, ListRequest{}, ListResponse{}},
	{OpStatus, StatusRequest{}, StatusResponse{}},
	{OpPing, PingRequest{}, AdminPingResponse{}},
}

// ProjectOperations are the ops of a project socket.
var ProjectOperations = []Operation{
	{OpGet, GetRequest{}, GetResponse{}},
	{OpGetMany, GetManyRequest{}, GetManyResponse{}},
	{OpInfo, InfoRequest{}, InfoResponse{}},
	{OpWatch, WatchRequest{}, WatchResponse{}},
	{OpPing, PingRequest{}, ProjectPingResponse{}},
}

// StreamEvents are the ops whose response is followed by further lines, of the type
// given as a zero value, until the connection ends.
var StreamEvents = map[Op]any{
	OpWatch: ChangedEvent{},
}
