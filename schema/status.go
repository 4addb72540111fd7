package schema

import "time"

// StatusRequest asks how the broker is.
type StatusRequest struct {
	Op Op `json:"op"`
}

// StatusResponse says how the broker is, in counts.
type StatusResponse struct {
	// OK is true.
	OK            bool   `json:"ok"`
	BrokerVersion string `json:"broker_version"`
	// ProtocolVersion is ProtocolVersion.
	ProtocolVersion int `json:"protocol_version"`
	// InstanceID is made anew at each start of the daemon, so a change of it
	// says that the memory was emptied.
	InstanceID    string `json:"instance_id"`
	UptimeSeconds int64  `json:"uptime_seconds"`
	// Generation numbers the set in memory; 0 says that none is loaded.
	Generation  uint64 `json:"generation"`
	SecretCount int    `json:"secret_count"`
	// SecretsLoadedAt is when the set was taken; absent where none is loaded.
	SecretsLoadedAt *time.Time `json:"secrets_loaded_at,omitzero"`
	// Memory says what holds the secrets.
	Memory Memory `json:"memory"`
	// DescriptorStore says whether the projects' sockets outlive the daemon.
	DescriptorStore DescriptorStore `json:"descriptor_store"`
	// ProjectsDir is where projects are declared; absent where nowhere.
	ProjectsDir string `json:"projects_dir,omitzero"`
	// AuditDropped counts the audit events that could not be recorded since the
	// start.
	AuditDropped uint64 `json:"audit_dropped"`
	// Projects are sorted by name.
	Projects []ProjectStatus `json:"projects"`
}

// ProjectStatus is one registered project in a StatusResponse.
type ProjectStatus struct {
	Name        ProjectName `json:"name"`
	ProjectPath string      `json:"project_path"`
	SocketPath  string      `json:"socket_path"`
	// Declared says that the project has a file in ProjectsDir, and so comes
	// back after a stop and after a reboot too.
	Declared      bool `json:"declared"`
	AllowlistSize int  `json:"allowlist_size"`
	// Counts are of secrets asked for since the project was registered.
	Counts      Counts `json:"counts"`
	Connections int    `json:"connections"`
	// ManifestSHA256 is of the text that was approved, in lower-case hex.
	ManifestSHA256 string `json:"manifest_sha256"`
}

// Counts counts secrets that were asked for, by what came of it.
type Counts struct {
	Allowed  uint64 `json:"allowed"`
	Denied   uint64 `json:"denied"`
	NotFound uint64 `json:"not_found"`
}

// Memory says how the memory that holds secrets is protected.
type Memory string

// The kinds of memory, best first.
const (
	// MemorySecret is memfd_secret(2): not in the kernel's direct map, never
	// swapped, unreadable through /proc/PID/mem.
	MemorySecret Memory = "memfd_secret"
	// MemoryLocked is mlock(2) with MADV_DONTDUMP: never swapped or dumped.
	MemoryLocked Memory = "mlock"
	// MemoryUnlocked could be swapped: RLIMIT_MEMLOCK allows no more.
	MemoryUnlocked Memory = "unlocked"
	// MemoryHeap is the Go heap, in a build for the race detector only.
	MemoryHeap Memory = "heap"
)

// MemoryKinds lists every kind of memory, for the generated schema.
var MemoryKinds = []Memory{MemorySecret, MemoryLocked, MemoryUnlocked, MemoryHeap}

// DescriptorStore says whether the service manager keeps the projects' sockets
// and registrations through a restart of the daemon (sd_notify(3), FDSTORE).
type DescriptorStore string

// The states of the descriptor store.
const (
	// DescriptorStoreAbsent: no service manager started the daemon.
	DescriptorStoreAbsent DescriptorStore = "absent"
	// DescriptorStoreKept: a restart loses no registration.
	DescriptorStoreKept DescriptorStore = "kept"
	// DescriptorStoreRefused: it did not take all; the daemon's log says more.
	DescriptorStoreRefused DescriptorStore = "refused"
)

// DescriptorStores lists every state, for the generated schema.
var DescriptorStores = []DescriptorStore{DescriptorStoreAbsent, DescriptorStoreKept, DescriptorStoreRefused}
