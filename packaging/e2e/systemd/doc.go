// Package systemd boots a real systemd, installs keyhatch there as a package
// would, and sees that it keeps its promises.
package systemd
