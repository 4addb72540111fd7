package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// findRedis finds redis-server. If redis-server is not installed, it returns a message with this
// reason.
func (b *bench) findRedis() (skipped string) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return redis + " is skipped, because redis-server is not installed: apt-get install redis-server"
	}
	b.redis = path
	return ""
}

// startRedis starts a redis server that writes nothing to disk.
func (b *bench) startRedis(dir string, cpu int) (*contender, error) {
	c := &contender{name: redis, socket: filepath.Join(dir, "redis.sock"), pushReply: []byte("+OK\r\n")}
	c.pushSocket = c.socket
	c.encodePush = func(names, values []string) []byte {
		set := []string{"MSET"}
		for i, name := range names {
			set = append(set, name, values[i])
		}
		return redisCommand(set...)
	}
	if err := c.start(cpu, exchange{redisCommand("PING"), []byte("+PONG\r\n")}, b.redis, "--port", "0", "--unixsocket", c.socket, "--dir", dir, "--save", "", "--appendonly", "no", "--maxclients", "11000"); err != nil {
		return nil, err
	}
	names, values := secrets()
	replies := ""
	for i, value := range values {
		c.get = append(c.get, exchange{redisCommand("GET", names[i]), []byte(redisString(value))})
		replies += redisString(value)
	}
	c.getMany = []exchange{{redisCommand(append([]string{"MGET"}, names...)...), fmt.Appendf(nil, "*%d\r\n%s", len(names), replies)}}
	return c, roundTrip(c.socket, exchange{c.encodePush(names, values), c.pushReply})
}

func redisString(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

// redisCommand encodes a command in the protocol of redis (RESP2).
func redisCommand(words ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, word := range words {
		b.WriteString(redisString(word))
	}
	return []byte(b.String())
}
