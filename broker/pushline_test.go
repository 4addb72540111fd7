package broker_test

import (
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// pushLine encodes a push request for client.Admin.Push. It sets the Op of the request.
func pushLine(request schema.PushRequest) []byte {
	request.Op = schema.OpPush
	line, err := wire.Encode(request)
	if err != nil {
		panic(err)
	}
	return line
}
