package fdstore

import (
	"strconv"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// The names of inherited and stored file descriptors. A changed registration is stored
// under the next sequence number. The previous registration is removed after that, so the
// store always contains a registration of the project.
//
// The service manager passes all names in one environment variable, and the kernel limits each
// environment variable to 128 KiB (execve(2)). If the variable were longer, the broker could
// never start again. So the name of a registration does not contain the project's name, which
// is in its content. The names of one project have 107 bytes at most, with their separators.
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

// parseRegistrationName is the inverse of registrationName.
func parseRegistrationName(name string) (sequence uint64, ok bool) {
	number, ok := strings.CutPrefix(name, registrationPrefix)
	sequence, err := strconv.ParseUint(number, 10, 64)
	return sequence, ok && err == nil && registrationName(sequence) == name
}
