package broker_test

import (
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// pushLine encodes the request for client.Admin.Push. It fills in the Op.
func pushLine(request schema.PushRequest) []byte {
	request.Op = schema.OpPush
	line, err := wire.Encode(request)
	if err != nil {
		panic(err)
	}
	return line
}
