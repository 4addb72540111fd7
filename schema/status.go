package schema

import "time"

// StatusRequest requests the status of the broker.
type StatusRequest struct {
	Op Op `json:"op"`
	// StoreProblems is the number of problems that a sidecar has with its store, for
	// example files that the sidecar cannot use. The new number replaces the number in the
	// previous status request on the same connection. If store_problems is absent, the
	// number is 0. Only sidecars send this field.
	StoreProblems int `json:"store_problems,omitzero"`
}

// StatusResponse is the status of the broker. It does not contain the name of any secret.
type StatusResponse struct {
	// OK is always true in this response.
	OK            bool   `json:"ok"`
	BrokerVersion string `json:"broker_version"`
	// ProtocolVersion is the major version of the wire protocol that the broker uses.
	ProtocolVersion int `json:"protocol_version"`
	// InstanceID is a new random value at each start of the broker. If it changes, the
	// broker has restarted and has lost all secrets.
	InstanceID    string `json:"instance_id"`
	UptimeSeconds int64  `json:"uptime_seconds"`
	// Generation is the number of the current snapshot, or 0 if no secrets are loaded.
	Generation  uint64 `json:"generation"`
	SecretCount int    `json:"secret_count"`
	// SecretsLoadedAt is the time at which the broker accepted the last push. It is absent if
	// no secrets are loaded.
	SecretsLoadedAt *time.Time `json:"secrets_loaded_at,omitzero"`
	// SecretsClearedAt is the time of the last clear that removed secrets. It is absent if
	// secrets are loaded, or if no secrets have been loaded since the broker started.
	SecretsClearedAt *time.Time `json:"secrets_cleared_at,omitzero"`
	// AdminToken is true if each client of the admin socket must send an admin token.
	AdminToken bool `json:"admin_token,omitzero"`
	// AdminConnections is the number of open connections to the admin socket. It includes
	// the connection of this request, and the connections of all sidecars.
	AdminConnections int `json:"admin_connections,omitzero"`
	// EventReaders is the number of connections to the admin socket that receive the event
	// stream.
	EventReaders int `json:"event_readers,omitzero"`
	// SidecarPID is the pid of the process that sent the last accepted push with exclusive. It
	// is absent if there was no push with exclusive, if the connection of this process has
	// ended, or if the broker cannot see the pid namespace of the process.
	SidecarPID int32 `json:"sidecar_pid,omitzero"`
	// SidecarMissing is true if a push with exclusive has loaded the current secrets and
	// the connection of the push has ended, so that a change in the store does not reach
	// the broker.
	SidecarMissing bool `json:"sidecar_missing,omitzero"`
	// RefusedSidecars is the number of open connections on which a push with exclusive was
	// refused with conflict, and no later push with exclusive was accepted.
	RefusedSidecars int `json:"refused_sidecars,omitzero"`
	// StoreProblems is the number of problems that all connected sidecars together have with
	// their stores. The log of each sidecar contains the details.
	StoreProblems int `json:"store_problems,omitzero"`
	// Memory is the kind of memory that contains the secrets. If no secrets are loaded, it is
	// the kind of memory that the broker uses for small pushes.
	Memory Memory `json:"memory"`
	// DescriptorStore reports whether the sockets and registrations of the projects survive a
	// restart of the broker.
	DescriptorStore DescriptorStore `json:"descriptor_store"`
	// ProjectsDir is the directory of declared projects. It is absent if the broker was
	// started without a directory of declared projects.
	ProjectsDir string `json:"projects_dir,omitzero"`
	// AuditDropped is the number of audit events that the broker could not write
	// since its start.
	AuditDropped uint64 `json:"audit_dropped"`
	// Projects lists the projects that the broker serves, sorted by name.
	Projects []ProjectStatus `json:"projects"`
	// Problems lists the projects that the broker should serve but does not serve, and the
	// projects that differ from their declarations. It is absent if there are no problems.
	Problems []ProjectProblem `json:"problems,omitzero"`
}

// ProjectProblem describes a project that the broker should serve but does not serve, or a
// served project that differs from its declaration. The broker should serve each declared
// project, and each project that was registered before a restart.
type ProjectProblem struct {
	// Project is the name of the project. If the problem is in the file of a declaration,
	// Project is the name of this file without .yaml. The field is empty if the name of the file
	// is not a valid name of a project, or if the broker cannot read the directory of declared
	// projects.
	Project string `json:"project"`
	// ProjectPath is the path of the project. It is absent if the broker does not know it.
	ProjectPath string      `json:"project_path,omitzero"`
	Problem     ProblemKind `json:"problem"`
	// Message describes the problem for people. It contains no name of a secret.
	Message string `json:"message"`
}

// ProblemKind is a kind of ProjectProblem.
type ProblemKind string

// The kinds of problems.
const (
	// ProblemNotDeclared means that a served project differs from its declaration, or that
	// its declaration was removed. When the broker next reads the declarations, at its next
	// start or after SIGHUP, it serves the project as declared, or unregisters the project
	// if its declaration was removed.
	ProblemNotDeclared ProblemKind = "differs_from_declaration"
	// ProblemNotApplied means that the broker does not serve a declared project, for example
	// because the declared manifest violates a rule of this version. It also means that the
	// broker cannot read the directory of declared projects, or that this directory is
	// missing.
	ProblemNotApplied ProblemKind = "declaration_not_served"
	// ProblemNotRestored means that the broker does not serve a project that was registered
	// before the broker restarted, and that is not declared.
	ProblemNotRestored ProblemKind = "registration_not_restored"
)

// ProblemKinds lists every kind of problem, for the generated schema.
var ProblemKinds = []ProblemKind{ProblemNotDeclared, ProblemNotApplied, ProblemNotRestored}

// ProjectStatus is the status of one served project.
type ProjectStatus struct {
	Name        ProjectName `json:"name"`
	ProjectPath string      `json:"project_path"`
	SocketPath  string      `json:"socket_path"`
	// Declared is true if the project was registered as a declared project, so its
	// registration came from a file in the directory of declared projects, or from a request
	// with declared. While the project has a file in this directory, the broker registers the
	// project at every start, even after a stop of the service or a reboot.
	Declared      bool `json:"declared"`
	AllowlistSize int  `json:"allowlist_size"`
	// Counts contains the numbers of names that were requested since this broker began to
	// serve the project. A change of the name or of allow_uids resets the numbers.
	Counts      Counts `json:"counts"`
	Connections int    `json:"connections"`
	// AllowUIDs contains the uids of the project's registration. It is absent if no uid is
	// allowed in addition to root and the broker's own uid.
	AllowUIDs []uint32 `json:"allow_uids,omitzero"`
	// ManifestSHA256 is the SHA-256 hash of the approved manifest's text, in lower-case
	// hexadecimal digits.
	ManifestSHA256 string `json:"manifest_sha256"`
}

// Counts contains the number of requested names for each result. NotFound includes the names
// for which the result was not_loaded.
type Counts struct {
	Allowed  uint64 `json:"allowed"`
	Denied   uint64 `json:"denied"`
	NotFound uint64 `json:"not_found"`
}

// Memory is a kind of memory that can contain secrets.
type Memory string

// The kinds of memory. The kind with the best protection is first.
const (
	// MemorySecret is memory of memfd_secret(2). The kernel itself has no mapping of this
	// memory. It is never swapped, and cannot be read through /proc/PID/mem.
	MemorySecret Memory = "memfd_secret"
	// MemoryLocked is memory that is locked with mlock(2) and marked with MADV_DONTDUMP.
	// It is never swapped, and is never part of a core dump.
	MemoryLocked Memory = "mlock"
	// MemoryUnlocked is memory that is not locked, because RLIMIT_MEMLOCK is too low. The
	// kernel can write it to swap.
	MemoryUnlocked Memory = "unlocked"
	// MemoryHeap is memory on the Go heap. Only a broker that was built with the race
	// detector, for tests, uses this memory.
	MemoryHeap Memory = "heap"
)

// MemoryKinds lists every kind of memory, for the generated schema.
var MemoryKinds = []Memory{MemorySecret, MemoryLocked, MemoryUnlocked, MemoryHeap}

// DescriptorStore reports whether the service manager keeps the sockets and registrations
// of the projects during a restart of the broker (FDSTORE in sd_notify(3)).
type DescriptorStore string

// The states of the service manager's file descriptor store.
const (
	// DescriptorStoreAbsent means that the broker was started without a service manager.
	DescriptorStoreAbsent DescriptorStore = "absent"
	// DescriptorStoreKept means that the service manager has stored all sockets and
	// registrations, so they survive a restart.
	DescriptorStoreKept DescriptorStore = "kept"
	// DescriptorStoreRefused means that the service manager refused to store a file
	// descriptor. After a restart, the broker may not serve some projects that are not
	// declared. The broker's log contains the details.
	DescriptorStoreRefused DescriptorStore = "refused"
)

// DescriptorStores lists every state of the file descriptor store, for the generated
// schema.
var DescriptorStores = []DescriptorStore{DescriptorStoreAbsent, DescriptorStoreKept, DescriptorStoreRefused}
