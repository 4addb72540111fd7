package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"
)

// PushRequest replaces the whole set of secrets in one step. A push that is
// invalid in any part changes nothing. At least one of the two maps must be
// there; a name may stand in only one of them.
type PushRequest struct {
	Op Op `json:"op"`
	// Secrets holds text values and bundles.
	Secrets map[SecretName]Value `json:"secrets,omitzero"`
	// SecretsB64 holds binary values, in standard base64 with padding
	// (RFC 4648, section 4). They come back from get as value_b64.
	SecretsB64 map[SecretName][]byte `json:"secrets_b64,omitzero"`
}

// Value is a secret as it is pushed: a text, or a bundle of named fields. The
// client builds one; the broker parses requests in place and never makes one.
type Value struct {
	// Text is the secret where Fields is nil.
	Text string
	// Fields makes the secret a bundle.
	Fields map[SecretName]string
}

// MarshalJSON writes a string, or for a bundle an object of strings. Bytes that
// are not UTF-8 are an error, because encoding/json would repair them silently.
func (v Value) MarshalJSON() ([]byte, error) {
	var plain any = v.Text
	ok := utf8.ValidString(v.Text)
	if v.Fields != nil {
		plain, ok = v.Fields, true
		for _, text := range v.Fields {
			ok = ok && utf8.ValidString(text)
		}
	}
	if !ok {
		return nil, errors.New("a text is not valid UTF-8: push it in secrets_b64")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // six bytes for every < would count against MaxPush
	err := enc.Encode(plain)
	return b.Bytes(), err
}

// PushResponse says that the set is in force: no later get answers anything
// older.
type PushResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// LoadedAt is when the broker took the set (RFC 3339, UTC).
	LoadedAt time.Time `json:"loaded_at"`
	// SecretCount is how many secrets it holds; a bundle counts as one.
	SecretCount int `json:"secret_count"`
	// Generation numbers the set. It grows by one with each push taken and
	// starts again with each instance_id.
	Generation uint64 `json:"generation"`
}

// ClearRequest drops the set and wipes the memory that held it.
type ClearRequest struct {
	Op Op `json:"op"`
}

// RegisterRequest brings a project online: its manifest is checked, its
// socket bound, and only then is it served.
type RegisterRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
	// ProjectPath is the project's directory, absolute and clean. Its base
	// name is the project's name.
	ProjectPath string `json:"project_path"`
	// Manifest is the manifest's text. Without it the daemon reads the file
	// beneath ProjectPath itself.
	Manifest *string `json:"manifest,omitzero"`
	// AllowUIDs may use the project's socket beside root, the broker's own
	// uid and the owner of ProjectPath.
	AllowUIDs []uint32 `json:"allow_uids,omitzero"`
	// DevcontainerIDs are what ${devcontainerId} stands for in the project's
	// dev containers. The broker links the project's directory under each, so
	// that a mount can name it without knowing the project.
	DevcontainerIDs []DevcontainerID `json:"devcontainer_ids,omitzero"`
	// Declared says that the caller wrote this registration into the projects
	// directory too. A project that is registered in the same way already is
	// marked so.
	Declared bool `json:"declared,omitzero"`
}

// RegisterResponse says where the project is served.
type RegisterResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// SocketPath is the project's socket. Its directory is what a container
	// mounts.
	SocketPath string `json:"socket_path"`
}

// UnregisterRequest takes a project offline and ends its connections. Its
// directory is kept, so that a container that has it mounted works again when
// the project is registered again.
type UnregisterRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
}

// ReloadRequest swaps a project's allowlist under its open connections.
type ReloadRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
	// Manifest is the manifest's text. Without it the daemon reads the file
	// beneath the project's path itself.
	Manifest *string `json:"manifest,omitzero"`
	// DryRun answers what would change, and changes nothing.
	DryRun bool `json:"dry_run,omitzero"`
}

// ReloadResponse says what is allowed now and what changed. Each list is
// sorted.
type ReloadResponse struct {
	// OK is true.
	OK        bool         `json:"ok"`
	Allowlist []SecretName `json:"allowlist"`
	Added     []SecretName `json:"added"`
	Removed   []SecretName `json:"removed"`
}

// ListRequest asks for the names of the secrets in memory.
type ListRequest struct {
	Op Op `json:"op"`
}

// ListResponse gives the names, sorted. Before the first push, and after a
// clear, there are none.
type ListResponse struct {
	// OK is true.
	OK    bool         `json:"ok"`
	Names []SecretName `json:"names"`
}

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

// Memories lists every kind of memory, for the generated schema.
var Memories = []Memory{MemorySecret, MemoryLocked, MemoryUnlocked, MemoryHeap}

// DescriptorStore says whether the service manager keeps the projects' sockets
// and registrations through a restart of the daemon (sd_notify(3), FDSTORE).
type DescriptorStore string

// The states of the descriptor store.
const (
	// DescriptorsAbsent: no service manager started the daemon.
	DescriptorsAbsent DescriptorStore = "absent"
	// DescriptorsKept: a restart loses no registration.
	DescriptorsKept DescriptorStore = "kept"
	// DescriptorsRefused: it did not take all; the daemon's log says more.
	DescriptorsRefused DescriptorStore = "refused"
)

// DescriptorStores lists every state, for the generated schema.
var DescriptorStores = []DescriptorStore{DescriptorsAbsent, DescriptorsKept, DescriptorsRefused}

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

// AdminPingResponse says who is there.
type AdminPingResponse struct {
	// OK is true.
	OK              bool   `json:"ok"`
	BrokerVersion   string `json:"broker_version"`
	ProtocolVersion int    `json:"protocol_version"`
	InstanceID      string `json:"instance_id"`
}
