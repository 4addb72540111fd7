package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// measureStarts measures the time until a server answers the first request, and its memory
// after that.
func (b *bench) measureStarts() (figures []single, err error) {
	ready, idle := single{Name: "start until the first answer", Unit: "ms", AtMost: 10}, single{Name: "idle memory", Unit: "MiB", AtMost: 10}
	times, memory := map[string][]float64{}, map[string][]float64{}
	for range b.rounds {
		f, err := b.startField(-1)
		if err != nil {
			return nil, err
		}
		for _, c := range f.gets {
			times[c.name] = append(times[c.name], milliseconds(c.ready))
			memory[c.name] = append(memory[c.name], c.process.memory()/1024)
		}
		f.stop()
	}
	for _, name := range []string{goEcho, cEcho, redis, keyhatchd} {
		if len(times[name]) > 0 {
			ready.Values = append(ready.Values, value{name, median(times[name])})
			idle.Values = append(idle.Values, value{name, median(memory[name])})
		}
	}
	return []single{ready, idle}, nil
}

// measureDeclaredStarts measures starts with many declared projects, without and with a
// service manager that stores file descriptors.
func (b *bench) measureDeclaredStarts() (figures []single, err error) {
	projectsDir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, err
	}
	for i := range manyProjects {
		name := projectName(i)
		text, err := manifest.Declaration{Name: schema.ProjectName(name), Path: "/nowhere/" + name, AllowUIDs: []uint32{uint32(os.Geteuid())}, Manifest: manifestOf(name)}.Encode()
		if err == nil {
			err = os.WriteFile(filepath.Join(projectsDir, name+".yaml"), text, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	manager, err := newServiceManager(b.dir + "/notify")
	if err != nil {
		return nil, err
	}
	defer manager.close()
	for _, underManager := range []bool{false, true} {
		var times, memory []float64
		name := "start with 1,000 declared projects"
		for range 3 {
			dir, err := os.MkdirTemp(b.dir, "")
			if err != nil {
				return nil, err
			}
			k := newKeyhatch(dir)
			cmd := exec.Command(b.keyhatchd, k.arguments(projectsDir)...)
			if underManager {
				cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+manager.path)
			}
			began := time.Now()
			if err := k.start(-1, cmd); err != nil {
				return nil, err
			}
			if underManager {
				<-manager.ready
			} else if err := k.process.waitFor(k.servesAll); err != nil {
				return nil, err
			}
			times, memory = append(times, milliseconds(time.Since(began))), append(memory, k.process.memory()/1024)
			status, err := k.admin.Status(context.Background())
			if err == nil {
				err = k.servesAll()
			}
			if err != nil {
				return nil, err
			}
			if underManager {
				name = fmt.Sprintf("start with 1,000 declared projects and a service manager (descriptors: %s)", status.DescriptorStore)
			}
			k.stop()
		}
		figures = append(figures, single{name, "ms", []value{{keyhatchd, median(times)}}, 500})
		if !underManager {
			figures = append(figures, single{"memory after a start with 1,000 declared projects", "MiB", []value{{keyhatchd, median(memory)}}, 0})
		}
	}
	return figures, nil
}

// servesAll returns an error if the broker does not serve all declared projects yet.
func (k *keyhatch) servesAll() error {
	time.Sleep(2 * time.Millisecond) // so that the requests do not delay the start much
	status, err := k.admin.Status(context.Background())
	if err == nil && (len(status.Projects) != manyProjects || len(status.Problems) > 0) {
		err = fmt.Errorf("the broker serves %d projects and has %d problems", len(status.Projects), len(status.Problems))
	}
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// measureSizes returns the sizes of the stripped programs.
func (b *bench) measureSizes() (figures []single, err error) {
	for _, program := range []struct {
		path   string
		atMost float64
	}{{b.keyhatchd, 6.5}, {filepath.Join(filepath.Dir(b.keyhatchd), "keyhatch"), 5.5}} {
		if info, err := os.Stat(program.path); err == nil {
			figures = append(figures, single{"size of the program", "MiB", []value{{filepath.Base(program.path), float64(info.Size()) / (1 << 20)}}, program.atMost})
		}
	}
	return figures, nil
}

// A serviceManager stores all file descriptors that it receives, like systemd with a
// sufficient FileDescriptorStoreMax=. It closes the file descriptors of a barrier.
type serviceManager struct {
	path   string
	socket *net.UnixConn
	ready  chan struct{} // receives each READY=1
	ended  chan struct{}
	stored map[string][]int
}

func newServiceManager(path string) (*serviceManager, error) {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	m := &serviceManager{path, socket, make(chan struct{}, 1), make(chan struct{}), map[string][]int{}}
	go m.serve() // ends when close closes the socket
	return m, nil
}

func (m *serviceManager) close() {
	m.socket.Close()
	<-m.ended
	for _, fds := range m.stored {
		closeAll(fds)
	}
}

func (m *serviceManager) serve() {
	defer close(m.ended)
	message, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, rightsLength, _, _, err := m.socket.ReadMsgUnix(message, rights)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(rights[:rightsLength]); err == nil && len(messages) > 0 {
			fds, _ = unix.ParseUnixRights(&messages[0])
		}
		variables := map[string]string{}
		for line := range strings.Lines(string(message[:n])) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			variables[key] = value
		}
		name := variables["FDNAME"]
		switch {
		case variables["READY"] == "1":
			m.ready <- struct{}{}
		case variables["FDSTOREREMOVE"] == "1":
			closeAll(m.stored[name])
			delete(m.stored, name)
		case variables["FDSTORE"] == "1":
			m.stored[name] = append(m.stored[name], fds...)
		default:
			closeAll(fds)
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
