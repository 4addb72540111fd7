package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// measureStarts measures the time until a server answers the first request, and the
// server's memory after this request.
func (b *bench) measureStarts() (figures []property, err error) {
	var ready, idle []value
	times, memory := map[string][]float64{}, map[string][]float64{}
	for range b.rounds {
		s, err := b.startServers(-1)
		if err != nil {
			return nil, err
		}
		for _, c := range s.gets {
			times[c.name] = append(times[c.name], milliseconds(c.ready))
			memory[c.name] = append(memory[c.name], c.process.memory()/1024)
		}
		s.stop()
	}
	for _, name := range []string{goEcho, cEcho, redis, keyhatchd} {
		if len(times[name]) > 0 {
			ready = append(ready, value{name, median(times[name])})
			idle = append(idle, value{name, median(memory[name])})
		}
	}
	return []property{newProperty("start until the first answer", "ms", 10, ready...), newProperty("idle memory", "MiB", 10, idle...)}, nil
}

// measureDeclaredStarts measures starts with many declared projects: with an empty runtime
// directory, with the directories of an earlier start, and with an empty runtime directory and
// a service manager that stores file descriptors. It also measures the memory after a start, and
// the time of a request for the status.
func (b *bench) measureDeclaredStarts() (figures []property, err error) {
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
	store := schema.DescriptorStore("")
	var emptyTimes, existingTimes, managedTimes, memories []float64
	for range 3 {
		runtimeDir, err := newRuntimeDir()
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(runtimeDir)
		for _, times := range []*[]float64{&emptyTimes, &existingTimes} {
			k, elapsed, err := b.startDeclared(runtimeDir, projectsDir, nil)
			if err != nil {
				return nil, err
			}
			*times, memories = append(*times, milliseconds(elapsed)), append(memories, k.process.memory()/1024)
			k.stop()
		}
		managedDir, err := newRuntimeDir()
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(managedDir)
		manager, err := newServiceManager(managedDir + ".notify")
		if err != nil {
			return nil, err
		}
		k, elapsed, err := b.startDeclared(managedDir, projectsDir, manager)
		if err != nil {
			return nil, err
		}
		managedTimes = append(managedTimes, milliseconds(elapsed))
		status, err := k.admin.Status(context.Background())
		if err != nil {
			return nil, err
		}
		store = status.DescriptorStore
		if figures == nil {
			op, err := medianTime(b.rounds*3, func() error { _, err := k.admin.Status(context.Background()); return err })
			if err != nil {
				return nil, err
			}
			figures = append(figures, newProperty("time of a status request with 1,000 declared projects, including decoding the answer", "ms", 15, value{keyhatchd, op}))
		}
		k.stop()
		manager.close()
		os.Remove(manager.path)
	}
	return append(figures,
		newProperty("start with 1,000 declared projects", "ms", 500, value{keyhatchd, median(emptyTimes)}),
		newProperty("start with 1,000 declared projects whose directories exist", "ms", 500, value{keyhatchd, median(existingTimes)}),
		newProperty(fmt.Sprintf("start with 1,000 declared projects and a service manager (descriptor store: %s)", store), "ms", 500, value{keyhatchd, median(managedTimes)}),
		newProperty("memory after a start with 1,000 declared projects", "MiB", 0, value{keyhatchd, median(memories)}),
	), nil
}

// newRuntimeDir creates a runtime directory in memory, if possible, because /run is also in
// memory.
func newRuntimeDir() (string, error) {
	if dir, err := os.MkdirTemp("/dev/shm", "khbench"); err == nil {
		return dir, os.Chmod(dir, 0o755)
	}
	dir, err := os.MkdirTemp("", "khbench")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	return dir, err
}

// startDeclared starts a broker and waits until it serves all declared projects. If there is a
// service manager, startDeclared waits for READY=1, which the broker sends at that time.
func (b *bench) startDeclared(runtimeDir, projectsDir string, manager *serviceManager) (*keyhatch, time.Duration, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, 0, err
	}
	k := newKeyhatch(dir, runtimeDir)
	cmd, ready := exec.Command(b.keyhatchd, k.arguments(projectsDir)...), k.servesAll
	if manager != nil {
		cmd.Env, ready = append(os.Environ(), "NOTIFY_SOCKET="+manager.path), manager.isReady
	}
	began := time.Now()
	if err := k.start(-1, cmd); err != nil {
		return nil, 0, err
	}
	if err := k.process.waitFor(ready); err != nil {
		return nil, 0, err
	}
	elapsed := time.Since(began)
	return k, elapsed, k.servesAll()
}

// servesAll returns an error if the broker does not serve all declared projects yet.
func (k *keyhatch) servesAll() error {
	time.Sleep(10 * time.Millisecond) // so that the requests do not delay the start much
	status, err := k.admin.Status(context.Background())
	if err == nil && (len(status.Projects) != manyProjects || len(status.Problems) > 0) {
		err = fmt.Errorf("the broker serves %d projects and has %d problems", len(status.Projects), len(status.Problems))
	}
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// measureSizes returns the sizes of the program files of keyhatchd and keyhatch.
func (b *bench) measureSizes() (figures []property, err error) {
	for _, program := range []struct {
		path   string
		atMost float64
	}{{b.keyhatchd, 6.5}, {filepath.Join(filepath.Dir(b.keyhatchd), "keyhatch"), 5.5}} {
		if info, err := os.Stat(program.path); err == nil {
			figures = append(figures, newProperty("size of the program", "MiB", program.atMost, value{filepath.Base(program.path), float64(info.Size()) / (1 << 20)}))
		}
	}
	return figures, nil
}
