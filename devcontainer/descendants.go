package devcontainer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A process is one entry of /proc.
type process struct {
	pid, parent, session int
	name                 string
	zombie               bool // the process has ended, but its parent has not collected the exit status
}

// descendants returns the descendants of this process, except the processes in exclude and their
// descendants. command is the process ID of the child that this process has started, or 0 if there
// is no such child.
//
// Process 1 of a container becomes the parent of the orphaned processes of docker exec, which have
// their own sessions. Therefore, if this process is process 1, descendants omits every orphaned
// process that has its own session. This also omits orphaned descendants of the command that have
// their own sessions, because they look the same.
func descendants(command int, exclude map[int]bool) []process {
	children := map[int][]process{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		if p, err := readProcess(path); err == nil {
			children[p.parent] = append(children[p.parent], p)
		}
	}
	self := os.Getpid()
	session, _ := unix.Getsid(0)
	var found []process
	for queue := []int{self}; len(queue) > 0; queue = queue[1:] {
		for _, p := range children[queue[0]] {
			ofDockerExec := p.parent == 1 && self == 1 && p.session != session && p.pid != command
			if !exclude[p.pid] && !ofDockerExec {
				queue, found = append(queue, p.pid), append(found, p)
			}
		}
	}
	return found
}

// readProcess reads a file /proc/PID/stat (proc_pid_stat(5)).
func readProcess(path string) (p process, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	// The name of a program can contain spaces and parentheses. So the name ends at the last
	// parenthesis.
	begin, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if begin < 1 || end < begin {
		return p, fmt.Errorf("%s does not have the expected form", path)
	}
	p.name = string(text[begin+1 : end])
	if p.pid, err = strconv.Atoi(string(text[:begin-1])); err != nil {
		return p, err
	}
	var state string
	var group int
	_, err = fmt.Sscan(string(text[end+1:]), &state, &p.parent, &group, &p.session)
	p.zombie = state == "Z" || state == "X"
	return p, err
}
