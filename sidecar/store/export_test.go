package store

// Parse exports parse for the tests in package store_test.
func (f Format) Parse(text []byte) (Set, error) {
	set, _, err := f.parse(text)
	return set, err
}

// SetProgram makes the child processes of c execute the program with this path.
func (c *ChildReader) SetProgram(path string) { c.programPath = path }

// RemoveOldBundle calls removeOldBundle in the store's directory.
func (d Dir) RemoveOldBundle(parent, name, bundle string, known ...string) error {
	root, err := openEditDir(d.Path, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.openDir(parent)
	if err != nil {
		return err
	}
	defer dir.Close()
	return root.removeOldBundle("done", dir, name, bundle, known)
}
