// Package devcontainer starts real dev containers, with a real engine and the
// real Dev Container CLI, and sees that each project gets its own secrets, that
// none gets another's, and that no value is left anywhere. make e2e-devcontainer
// runs it.
package devcontainer
