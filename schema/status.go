package schema

import "time"

// StatusRequest requests the status of the broker.
type StatusRequest struct {
	Op Op `json:"op"`
	// StoreProblems is the number of problems that a sidecar has with its store, for example
	// files that it cannot use. It replaces the number of an earlier request on the same
	// connection. Only sidecars send this field.
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
	// Generation is the number of the current snapshot. 0 means that no secrets are
	// loaded.
	Generation  uint64 `json:"generation"`
	SecretCount int    `json:"secret_count"`
	// SecretsLoadedAt is the time of the last push. It is absent if no secrets are
	// loaded.
	SecretsLoadedAt *time.Time `json:"secrets_loaded_at,omitzero"`
	// SecretsClearedAt is the time of the clear that removed the last secrets. It is absent
	// if secrets are loaded, or if no secrets have been loaded since the broker started.
	SecretsClearedAt *time.Time `json:"secrets_cleared_at,omitzero"`
	// AdminConnections is the number of open connections to the admin socket. It includes
	// the connection of this request. A sidecar does not close its connection.
	AdminConnections int `json:"admin_connections,omitzero"`
	// SidecarPID is the pid of the process that sent the last accepted push with exclusive.
	// It is absent if the connection of this process has ended, or if the broker cannot see
	// the pid namespace of the process.
	SidecarPID int32 `json:"sidecar_pid,omitzero"`
	// RefusedSidecars is the number of open connections whose last push was refused with
	// conflict.
	RefusedSidecars int `json:"refused_sidecars,omitzero"`
	// StoreProblems is the number of problems that the connected sidecars have with their
	// stores. The log of a sidecar contains the details.
	StoreProblems int `json:"store_problems,omitzero"`
	// Memory is the kind of memory that contains the secrets.
	Memory Memory `json:"memory"`
	// DescriptorStore reports whether the sockets of the projects survive a restart of
	// the broker.
	DescriptorStore DescriptorStore `json:"descriptor_store"`
	// ProjectsDir is the directory of declared projects. It is absent if the broker
	// has no such directory.
	ProjectsDir string `json:"projects_dir,omitzero"`
	// AuditDropped is the number of audit events that the broker could not write
	// since its start.
	AuditDropped uint64 `json:"audit_dropped"`
	// Projects lists the registered projects, sorted by name.
	Projects []ProjectStatus `json:"projects"`
	// Problems lists differences between the served projects and the projects that are
	// declared or stored for a restart. It is absent if there are none.
	Problems []ProjectProblem `json:"problems,omitzero"`
}

// ProjectProblem is a difference between the served projects and the projects that are
// declared or stored for a restart.
type ProjectProblem struct {
	// Project is the name of the project, or of the declaration's file without .yaml. It is
	// empty if the problem is in the directory of declared projects, or if the name of the
	// file is not a valid name of a project.
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
	// ProblemNotDeclared means that the broker serves a project in another way than its
	// declaration describes. At its next start, the broker serves the declaration.
	ProblemNotDeclared ProblemKind = "differs_from_declaration"
	// ProblemNotApplied means that the broker does not serve a declaration, for example
	// because its manifest violates a rule of this version.
	ProblemNotApplied ProblemKind = "declaration_not_served"
	// ProblemNotRestored means that the broker does not serve a project that an earlier
	// broker served.
	ProblemNotRestored ProblemKind = "registration_not_restored"
)

// ProblemKinds lists every kind of problem, for the generated schema.
var ProblemKinds = []ProblemKind{ProblemNotDeclared, ProblemNotApplied, ProblemNotRestored}

// ProjectStatus is the status of one registered project.
type ProjectStatus struct {
	Name        ProjectName `json:"name"`
	ProjectPath string      `json:"project_path"`
	SocketPath  string      `json:"socket_path"`
	// Declared reports whether the project has a file in the directory of declared
	// projects. If so, the broker registers the project at every start, even after a stop
	// of the service or a reboot.
	Declared      bool `json:"declared"`
	AllowlistSize int  `json:"allowlist_size"`
	// Counts contains the numbers of names that were requested since the project was
	// registered.
	Counts      Counts `json:"counts"`
	Connections int    `json:"connections"`
	// AllowUIDs is the allow_uids of the project's registration.
	AllowUIDs []uint32 `json:"allow_uids,omitzero"`
	// ManifestSHA256 is the SHA-256 hash of the approved manifest text, in lower-case
	// hex.
	ManifestSHA256 string `json:"manifest_sha256"`
}

// Counts contains the number of requested names for each result. NotFound includes the
// names that were refused with not_loaded.
type Counts struct {
	Allowed  uint64 `json:"allowed"`
	Denied   uint64 `json:"denied"`
	NotFound uint64 `json:"not_found"`
}

// Memory is a kind of memory that can contain secrets.
type Memory string

// The kinds of memory. The kind with the best protection is first.
const (
	// MemorySecret is memory of memfd_secret(2). It is not in the kernel's direct map. It
	// is never swapped, and cannot be read through /proc/PID/mem.
	MemorySecret Memory = "memfd_secret"
	// MemoryLocked is memory that is locked with mlock(2) and marked with MADV_DONTDUMP.
	// It is never swapped, and is never part of a core dump.
	MemoryLocked Memory = "mlock"
	// MemoryUnlocked is memory that is not locked, because RLIMIT_MEMLOCK is too low. The
	// kernel can write it to swap.
	MemoryUnlocked Memory = "unlocked"
	// MemoryHeap is memory on the Go heap. Only a build with the race detector uses it.
	MemoryHeap Memory = "heap"
)

// MemoryKinds lists every kind of memory, for the generated schema.
var MemoryKinds = []Memory{MemorySecret, MemoryLocked, MemoryUnlocked, MemoryHeap}

// DescriptorStore reports whether the service manager keeps the sockets and registrations
// of the projects during a restart of the broker (FDSTORE in sd_notify(3)).
type DescriptorStore string

// The states of the service manager's file descriptor store.
const (
	// DescriptorStoreAbsent means that no service manager with a file descriptor store
	// started the broker.
	DescriptorStoreAbsent DescriptorStore = "absent"
	// DescriptorStoreKept means that all sockets and registrations survive a restart.
	DescriptorStoreKept DescriptorStore = "kept"
	// DescriptorStoreRefused means that the service manager did not store all file
	// descriptors. The broker's log contains the details.
	DescriptorStoreRefused DescriptorStore = "refused"
)

// DescriptorStores lists every state of the file descriptor store, for the generated
// schema.
var DescriptorStores = []DescriptorStore{DescriptorStoreAbsent, DescriptorStoreKept, DescriptorStoreRefused}
