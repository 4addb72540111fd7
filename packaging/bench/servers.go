package main

import "os"

// servers contains the running servers of a comparison.
type servers struct {
	gets   []*contender // the first one is the baseline
	pushes []*contender
	broker *keyhatch
}

// startServers starts all servers.
func (b *bench) startServers(cpu int) (*servers, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, err
	}
	broker, err := b.startKeyhatch(dir, cpu)
	if err == nil {
		err = broker.pushAndRegister()
	}
	if err != nil {
		return nil, err
	}
	echo, sink, err := b.startGo(dir, cpu, broker)
	if err != nil {
		return nil, err
	}
	s := &servers{gets: []*contender{echo}, pushes: []*contender{sink}, broker: broker}
	if b.cEcho != "" {
		c, err := b.startCEcho(dir, cpu, broker)
		if err != nil {
			return nil, err
		}
		s.gets = append(s.gets, c)
	}
	if b.redis != "" {
		r, err := b.startRedis(dir, cpu)
		if err != nil {
			return nil, err
		}
		s.gets, s.pushes = append(s.gets, r), append(s.pushes, r)
	}
	s.gets, s.pushes = append(s.gets, &broker.contender), append(s.pushes, &broker.contender)
	return s, nil
}

// restore pushes the secrets of the benchmark again.
func (s *servers) restore() error {
	for _, c := range s.pushes {
		if c.pushReply == nil {
			continue
		}
		if err := roundTrip(c.pushSocket, exchange{c.encodePush(secrets()), c.pushReply}); err != nil {
			return err
		}
	}
	return s.broker.pushSecrets()
}

func (s *servers) stop() {
	for _, c := range s.gets {
		c.process.stop()
	}
}
