package main

import "os"

// A field contains the running servers of a comparison.
type field struct {
	gets   []*contender // the first one is the baseline
	pushes []*contender
	broker *keyhatch
}

// startField starts all servers.
func (b *bench) startField(cpu int) (*field, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, err
	}
	broker, err := b.startKeyhatch(dir, cpu, "")
	if err == nil {
		err = broker.load()
	}
	if err != nil {
		return nil, err
	}
	echo, sink, err := b.startGo(dir, cpu, broker)
	if err != nil {
		return nil, err
	}
	f := &field{gets: []*contender{echo}, pushes: []*contender{sink}, broker: broker}
	if b.cEcho != "" {
		c, err := b.startCEcho(dir, cpu, broker)
		if err != nil {
			return nil, err
		}
		f.gets = append(f.gets, c)
	}
	if b.redis != "" {
		r, err := b.startRedis(dir, cpu)
		if err != nil {
			return nil, err
		}
		f.gets, f.pushes = append(f.gets, r), append(f.pushes, r)
	}
	f.gets, f.pushes = append(f.gets, &broker.contender), append(f.pushes, &broker.contender)
	return f, nil
}

// restore pushes the secrets of the benchmark again.
func (f *field) restore() error {
	for _, c := range f.pushes {
		if c.pushReply == nil {
			continue
		}
		if err := ask(c.pushSocket, exchange{c.encodePush(secrets()), c.pushReply}); err != nil {
			return err
		}
	}
	return f.broker.pushSecrets()
}

func (f *field) stop() {
	for _, c := range f.gets {
		c.process.stop()
	}
}
