package schema

import (
	"time"
)

// PushRequest replaces all secrets in one step. If any part of a push is invalid, the
// broker rejects the whole push and keeps the current secrets. At least one of the fields
// secrets and secrets_b64 is required. A name must not be in both fields.
type PushRequest struct {
	Op Op `json:"op"`
	// Secrets contains text values and bundles.
	Secrets map[SecretName]Value `json:"secrets,omitzero"`
	// SecretsB64 contains binary values, in standard base64 with padding (RFC 4648, section
	// 4). A get returns a binary value in value_b64.
	SecretsB64 map[SecretName][]byte `json:"secrets_b64,omitzero"`
	// Exclusive makes the broker refuse this push with conflict if another connection sent
	// the last accepted exclusive push, and that connection is still open. Sidecars set
	// Exclusive, so that two sidecars do not replace each other's secrets again and again.
	Exclusive bool `json:"exclusive,omitzero"`
}

// PushResponse confirms that the broker has replaced its secrets. After the broker has
// answered the push, each response that it begins to send contains only secrets of this push
// or of a later push.
type PushResponse struct {
	// OK is always true in this response.
	OK bool `json:"ok"`
	// LoadedAt is the time at which the broker accepted the push (RFC 3339, UTC).
	LoadedAt time.Time `json:"loaded_at"`
	// SecretCount is the number of pushed secrets. A bundle counts as one secret.
	SecretCount int `json:"secret_count"`
	// Generation is the number of the new snapshot. The number increases by one with each
	// accepted push. If the instance_id changes, the number starts at 1 again.
	Generation uint64 `json:"generation"`
}

// ClearRequest removes all secrets from the broker. The broker wipes the memory of the
// secrets as soon as no response uses this memory any more.
type ClearRequest struct {
	Op Op `json:"op"`
}

// RegisterRequest registers a project, or changes the registration of a project. The broker
// checks the manifest. For a new project, it then creates the project's socket and serves the
// project.
type RegisterRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
	// ProjectPath is the absolute path of the project's directory. It must not contain a
	// component . or .., double slashes, or a trailing slash. The broker chooses the directory
	// of the project's socket by project_path, and not by name. The broker refuses the request
	// with project_exists if a project at another path has the name, or had the name before
	// and the link with this name still exists.
	ProjectPath string `json:"project_path"`
	// Manifest is the text of the manifest. If it is absent, the broker reads the
	// manifest file in the project's directory.
	Manifest *string `json:"manifest,omitzero"`
	// AllowUIDs lists the uids that may use the project's socket. Root and the broker's own
	// uid may always use this socket. If AllowUIDs is empty, a registered project keeps its
	// uids. If AllowUIDs is empty and the project is new, the broker allows the user that owns
	// the project's directory at the moment of the request, or allows no additional uid if
	// Declared is true or if the broker cannot see the directory. AllowUIDs must not contain
	// 65534.
	AllowUIDs []uint32 `json:"allow_uids,omitzero"`
	// DevcontainerIDs lists the values of ${devcontainerId} in the project's dev containers.
	// For each value, the broker creates a link to the directory of the project's socket, so
	// that a dev container can mount this directory without the name of the project. The
	// broker refuses the request with project_exists if a project at another path has one of
	// the IDs, or had it before and the link with this ID still exists.
	DevcontainerIDs []DevcontainerID `json:"devcontainer_ids,omitzero"`
	// Declared means that the caller has also written this registration to the directory of
	// declared projects, so the broker marks the project as declared. A request with declared
	// does not need replace if the project is already registered with the same name, manifest,
	// uids, and dev container IDs.
	Declared bool `json:"declared,omitzero"`
	// Replace allows the broker to change the registration of a project that it already serves
	// at the same project_path. If the name or allow_uids changes, the broker closes the
	// connections of the project. Without replace, the response is project_exists if the
	// broker already serves a project at this project_path. A registration of a project that
	// the broker cannot serve is replaced even without replace.
	Replace bool `json:"replace,omitzero"`
	// DryRun makes the broker only check the registration, and change no project. If the check
	// succeeds, the response is the same as without dry_run.
	DryRun bool `json:"dry_run,omitzero"`
}

// RegisterResponse contains the path of the project's socket. After a request with dry_run for
// a new project, this socket does not exist yet.
type RegisterResponse struct {
	// OK is always true in this response.
	OK bool `json:"ok"`
	// SocketPath is the path of the project's socket. A container must mount the
	// directory of the socket, and not the socket file.
	SocketPath string `json:"socket_path"`
}

// UnregisterRequest unregisters a project. The broker closes the project's connections and
// removes its socket, but keeps the directory of the socket. A container that has mounted this
// directory can connect again after a project at the same path has been registered.
type UnregisterRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
}

// ReloadRequest replaces the approved manifest of a served project. The connections of the
// project stay open.
type ReloadRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
	// Manifest is the text of the manifest. If it is absent, the broker reads the
	// manifest file in the project's directory.
	Manifest *string `json:"manifest,omitzero"`
	// DryRun makes the broker check the manifest and return the same response, without
	// replacing the manifest.
	DryRun bool `json:"dry_run,omitzero"`
}

// ReloadResponse contains the new allowlist, and the names that the reload adds to the
// old allowlist or removes from it. Each list is sorted.
type ReloadResponse struct {
	// OK is always true in this response.
	OK        bool         `json:"ok"`
	Allowlist []SecretName `json:"allowlist"`
	Added     []SecretName `json:"added"`
	Removed   []SecretName `json:"removed"`
}

// InspectRequest requests the registration of one project, even if the broker cannot serve
// the project.
type InspectRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
}

// InspectResponse contains the registration of a project.
type InspectResponse struct {
	// OK is always true in this response.
	OK          bool        `json:"ok"`
	Name        ProjectName `json:"name"`
	ProjectPath string      `json:"project_path"`
	SocketPath  string      `json:"socket_path"`
	// Manifest is the text of the approved manifest.
	Manifest        string           `json:"manifest"`
	AllowUIDs       []uint32         `json:"allow_uids,omitzero"`
	DevcontainerIDs []DevcontainerID `json:"devcontainer_ids,omitzero"`
	Declared        bool             `json:"declared"`
	// Unserved is true if the broker cannot serve the project. The problems in the status
	// contain the reason.
	Unserved bool `json:"unserved,omitzero"`
}

// ListRequest requests the names of all secrets in the broker's memory.
type ListRequest struct {
	Op Op `json:"op"`
}

// ListResponse contains the sorted names of all secrets. If no secrets are loaded, the list
// is empty.
type ListResponse struct {
	// OK is always true in this response.
	OK    bool         `json:"ok"`
	Names []SecretName `json:"names"`
}

// AdminPingResponse identifies the broker.
type AdminPingResponse struct {
	// OK is always true in this response.
	OK              bool   `json:"ok"`
	BrokerVersion   string `json:"broker_version"`
	ProtocolVersion int    `json:"protocol_version"`
	InstanceID      string `json:"instance_id"`
}

// AuthRequest authorizes a connection to the admin socket. If the broker requires an admin
// token, a client must send an AuthRequest as the first request of each connection, and within
// AuthTimeout.
type AuthRequest struct {
	Op Op `json:"op"`
	// Token is the content of the broker's token file, without the newline. The broker
	// generates a new token at each start.
	Token string `json:"token"`
}
