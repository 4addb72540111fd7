package fdstore

import (
	"strconv"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// The names of inherited and stored file descriptors. A changed registration is stored
// under the next sequence number. The previous registration is removed after that, so the
// store always contains a registration of the project.
const (
	adminName          = "admin"
	listenerPrefix     = "project-"      // followed by the project's name
	registrationPrefix = "registration-" // followed by the project's name, @, and the sequence number
	probeName          = "probe"
)

func listenerName(project schema.ProjectName) string { return listenerPrefix + string(project) }

func registrationName(project schema.ProjectName, sequence uint64) string {
	return registrationPrefix + string(project) + "@" + strconv.FormatUint(sequence, 10)
}

// parseRegistrationName is the inverse of registrationName.
func parseRegistrationName(name string) (project schema.ProjectName, sequence uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, registrationPrefix)
	text, number, found := strings.Cut(rest, "@")
	sequence, err := strconv.ParseUint(number, 10, 64)
	project = schema.ProjectName(text)
	ok = ok && found && err == nil && schema.ValidProjectName(text) && registrationName(project, sequence) == name
	return project, sequence, ok
}
