package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// measureConnections measures the memory of idle connections. Each connection gets a secret
// once. In keyhatchd, the connections are distributed over many projects, because the number
// of connections of a project is limited (schema.MaxProjectConnections).
func (b *bench) measureConnections() ([]property, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	if needed := uint64(manyConnections + 3*manyProjects); limit.Max < needed {
		fmt.Fprintf(b.out, "\nidle connections are skipped, because the limit of open files (ulimit -Hn) is below %d\n", needed)
		return nil, nil
	}
	s, err := b.startServers(-1)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	for i := range manyProjects {
		if err := s.broker.register(projectName(i)); err != nil {
			return nil, err
		}
	}
	var values []value
	for _, c := range s.gets {
		if c.name == cEcho {
			continue // the echo server in C uses no memory per connection
		}
		before := c.process.memory()
		if err := s.withConnections(c, func() {
			values = append(values, value{c.name, (c.process.memory() - before) / manyConnections})
		}); err != nil {
			return nil, fmt.Errorf("idle connections to %s: %w", c.name, err)
		}
	}
	return []property{newProperty("memory per idle connection, after one get on each of 10,000", "KiB", 5, values...)}, nil
}

// withConnections opens many connections to a contender, sends a request on each, and calls
// measure. Then withConnections closes the connections.
func (s *servers) withConnections(c *contender, measure func()) error {
	client := newLoadClient(load{})
	for i := range manyConnections {
		socket := c.socket
		if c.name == keyhatchd {
			socket = s.broker.projectSocket(projectName(i % manyProjects))
			s.broker.sent++
		}
		fd, err := newAddress(socket).connect()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := client.exchange(fd, c.get[0].request, c.get[0].reply); err != nil {
			return err
		}
	}
	measure()
	return nil
}
