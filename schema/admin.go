package schema

import (
	"time"
)

// PushRequest replaces all secrets in one step. If any part of a push is
// invalid, the broker rejects the whole push and keeps the current secrets. At
// least one of the two maps is required. A name must not be in both.
type PushRequest struct {
	Op Op `json:"op"`
	// Secrets holds text values and bundles.
	Secrets map[SecretName]Value `json:"secrets,omitzero"`
	// SecretsB64 holds binary values, in standard base64 with padding
	// (RFC 4648, section 4). A get returns them in value_b64.
	SecretsB64 map[SecretName][]byte `json:"secrets_b64,omitzero"`
}

// PushResponse confirms that the pushed secrets are in force. No later get
// returns an older secret.
type PushResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// LoadedAt is the time at which the broker accepted the push (RFC 3339, UTC).
	LoadedAt time.Time `json:"loaded_at"`
	// SecretCount is the number of pushed secrets. A bundle counts as one.
	SecretCount int `json:"secret_count"`
	// Generation is the number of the new snapshot. It grows by one with each
	// accepted push, and restarts at 1 if the instance_id changes.
	Generation uint64 `json:"generation"`
}

// ClearRequest removes all secrets and wipes the memory that held them.
type ClearRequest struct {
	Op Op `json:"op"`
}

// RegisterRequest registers a project. The broker checks the manifest, binds the
// project's socket, and then serves the project.
type RegisterRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
	// ProjectPath is the project's directory, as an absolute path without ., ..,
	// double slashes, or a trailing slash. Its base name must be the project's
	// name.
	ProjectPath string `json:"project_path"`
	// Manifest is the text of the manifest. If it is absent, the broker reads the
	// manifest file in the project's directory.
	Manifest *string `json:"manifest,omitzero"`
	// AllowUIDs lists additional uids that may use the project's socket. Root, the
	// broker's own uid, and the owner of the project's directory may always use it.
	AllowUIDs []uint32 `json:"allow_uids,omitzero"`
	// DevcontainerIDs lists the values of ${devcontainerId} in the project's dev
	// containers. For each of them, the broker creates a link to the project's
	// directory. A mount can then name the link without knowing the project.
	DevcontainerIDs []DevcontainerID `json:"devcontainer_ids,omitzero"`
	// Declared reports whether the caller also wrote this registration to the
	// directory of declared projects. If so, and if the project is already
	// registered with the same values, the broker marks the project as declared and
	// does not return project_exists.
	Declared bool `json:"declared,omitzero"`
}

// RegisterResponse contains the path of the project's socket.
type RegisterResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// SocketPath is the path of the project's socket. A container must mount the
	// directory of the socket.
	SocketPath string `json:"socket_path"`
}

// UnregisterRequest unregisters a project. The broker closes the project's
// connections and removes its socket, but keeps the directory of the socket. If the
// project is registered again, a container that has mounted the directory can
// connect again.
type UnregisterRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
}

// ReloadRequest replaces the manifest of a project. The connections of the
// project stay open.
type ReloadRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
	// Manifest is the text of the manifest. If it is absent, the broker reads the
	// manifest file in the project's directory.
	Manifest *string `json:"manifest,omitzero"`
	// DryRun makes the broker compute the response without replacing the
	// manifest.
	DryRun bool `json:"dry_run,omitzero"`
}

// ReloadResponse contains the new allowlist and its difference from the old one.
// Each list is sorted.
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

// ListResponse contains the names, sorted. The list is empty before the first
// push and after a clear.
type ListResponse struct {
	// OK is true.
	OK    bool         `json:"ok"`
	Names []SecretName `json:"names"`
}

// AdminPingResponse identifies the broker.
type AdminPingResponse struct {
	// OK is true.
	OK              bool   `json:"ok"`
	BrokerVersion   string `json:"broker_version"`
	ProtocolVersion int    `json:"protocol_version"`
	InstanceID      string `json:"instance_id"`
}
