package schema

import "time"

// StatusRequest asks for the broker's status.
type StatusRequest struct {
	Op Op `json:"op"`
}

// StatusResponse is the broker's status. It contains no name of a secret.
type StatusResponse struct {
	// OK is true.
	OK            bool   `json:"ok"`
	BrokerVersion string `json:"broker_version"`
	// ProtocolVersion is ProtocolVersion.
	ProtocolVersion int `json:"protocol_version"`
	// InstanceID is generated at each start of the broker. If it changes, the broker
	// restarted and lost all secrets.
	InstanceID    string `json:"instance_id"`
	UptimeSeconds int64  `json:"uptime_seconds"`
	// Generation is the number of the current snapshot. 0 means that no secrets are
	// loaded.
	Generation  uint64 `json:"generation"`
	SecretCount int    `json:"secret_count"`
	// SecretsLoadedAt is the time of the last push. It is absent if no secrets are
	// loaded.
	SecretsLoadedAt *time.Time `json:"secrets_loaded_at,omitzero"`
	// Memory is the kind of memory that holds the secrets.
	Memory Memory `json:"memory"`
	// DescriptorStore reports whether the projects' sockets survive a restart of the
	// broker.
	DescriptorStore DescriptorStore `json:"descriptor_store"`
	// ProjectsDir is the directory of declared projects. It is absent if the broker
	// has no such directory.
	ProjectsDir string `json:"projects_dir,omitzero"`
	// AuditDropped is the number of audit events that the broker could not write
	// since its start.
	AuditDropped uint64 `json:"audit_dropped"`
	// Projects lists the registered projects, sorted by name.
	Projects []ProjectStatus `json:"projects"`
}

// ProjectStatus is the status of one registered project.
type ProjectStatus struct {
	Name        ProjectName `json:"name"`
	ProjectPath string      `json:"project_path"`
	SocketPath  string      `json:"socket_path"`
	// Declared reports whether the project has a file in the directory of declared
	// projects. If so, the broker registers the project at every start, also after a
	// stop or a reboot.
	Declared      bool `json:"declared"`
	AllowlistSize int  `json:"allowlist_size"`
	// Counts contains the numbers of requested names since the project was
	// registered.
	Counts      Counts `json:"counts"`
	Connections int    `json:"connections"`
	// ManifestSHA256 is the SHA-256 hash of the approved manifest text, in lower-case
	// hex.
	ManifestSHA256 string `json:"manifest_sha256"`
}

// Counts contains the numbers of requested names, by result. NotFound includes the
// names that were refused with not_loaded.
type Counts struct {
	Allowed  uint64 `json:"allowed"`
	Denied   uint64 `json:"denied"`
	NotFound uint64 `json:"not_found"`
}

// Memory is a kind of memory for secrets.
type Memory string

// The kinds of memory, in descending order of protection.
const (
	// MemorySecret is memfd_secret(2). It is not in the kernel's direct map, is never
	// swapped, and cannot be read through /proc/PID/mem.
	MemorySecret Memory = "memfd_secret"
	// MemoryLocked is mlock(2) with MADV_DONTDUMP. It is never swapped, and never part
	// of a core dump.
	MemoryLocked Memory = "mlock"
	// MemoryUnlocked is memory that the kernel can write to swap, because
	// RLIMIT_MEMLOCK is too low.
	MemoryUnlocked Memory = "unlocked"
	// MemoryHeap is the Go heap. Only a build with the race detector uses it.
	MemoryHeap Memory = "heap"
)

// MemoryKinds lists every kind of memory, for the generated schema.
var MemoryKinds = []Memory{MemorySecret, MemoryLocked, MemoryUnlocked, MemoryHeap}

// DescriptorStore reports whether the service manager keeps the projects' sockets
// and registrations during a restart of the broker (FDSTORE in sd_notify(3)).
type DescriptorStore string

// The states of the descriptor store.
const (
	// DescriptorStoreAbsent: the broker was not started by a service manager with a
	// descriptor store.
	DescriptorStoreAbsent DescriptorStore = "absent"
	// DescriptorStoreKept: a restart keeps all registrations.
	DescriptorStoreKept DescriptorStore = "kept"
	// DescriptorStoreRefused: the service manager did not store all descriptors. The
	// broker's log has the details.
	DescriptorStoreRefused DescriptorStore = "refused"
)

// DescriptorStores lists every state, for the generated schema.
var DescriptorStores = []DescriptorStore{DescriptorStoreAbsent, DescriptorStoreKept, DescriptorStoreRefused}
