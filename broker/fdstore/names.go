package fdstore

import (
	"strconv"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// These are the names of inherited and stored file descriptors. The broker stores a changed
// registration under the next sequence number, and removes the previous registration after that.
// So the store contains a registration of the project at every moment of a change.
//
// The service manager passes all names in one environment variable, and the kernel limits each
// environment variable to 128 KiB (execve(2)). If the variable were longer, the broker could
// not start again. Therefore the names are short: the name of a registration does not contain the
// project's name, because the stored file contains it. The two names of a project, with their
// separators, have 107 bytes at most.
const (
	adminName          = "admin"
	listenerPrefix     = "project-"      // followed by the project's name
	registrationPrefix = "registration@" // followed by the sequence number
	probeName          = "probe"
)

func listenerName(project schema.ProjectName) string { return listenerPrefix + string(project) }

func registrationName(sequence uint64) string {
	return registrationPrefix + strconv.FormatUint(sequence, 10)
}

// parseRegistrationName returns the sequence number in a name that registrationName has returned.
// For any other name, it returns false.
func parseRegistrationName(name string) (sequence uint64, ok bool) {
	number, ok := strings.CutPrefix(name, registrationPrefix)
	sequence, err := strconv.ParseUint(number, 10, 64)
	return sequence, ok && err == nil && registrationName(sequence) == name
}
