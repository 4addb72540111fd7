package schema

import (
	"time"
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

// AdminPingResponse says who is there.
type AdminPingResponse struct {
	// OK is true.
	OK              bool   `json:"ok"`
	BrokerVersion   string `json:"broker_version"`
	ProtocolVersion int    `json:"protocol_version"`
	InstanceID      string `json:"instance_id"`
}
