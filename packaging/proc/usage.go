// Package proc reads the resources that processes use, for the programs that attack and measure
// keyhatch.
package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A Usage contains how many file descriptors, threads, and KiB of resident memory a process uses.
// The memory does not include memory that the kernel uses for the sockets of the process.
type Usage struct{ Descriptors, Threads, Kilobytes int }

func (u Usage) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB", u.Descriptors, u.Threads, u.Kilobytes)
}

// Read returns the usage of a process (proc_pid_status(5), proc_pid_fd(5)). Only root can list the
// file descriptors of an undumpable process. For other users, Read returns 0 descriptors.
func Read(pid int) (u Usage, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case fields[0] == "Threads:":
			u.Threads, err = strconv.Atoi(fields[1])
		case fields[0] == "VmRSS:":
			u.Kilobytes, err = strconv.Atoi(fields[1])
		}
		if err != nil {
			return u, err
		}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil && os.Geteuid() == 0 {
		return u, err
	}
	u.Descriptors = len(open)
	return u, nil
}
