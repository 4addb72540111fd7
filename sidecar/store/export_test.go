package store

// Parse exports parse for the tests in package store_test.
func (f Format) Parse(text []byte) (Set, error) {
	set, _, err := f.parse(text)
	return set, err
}

// SetProgram makes the child processes of c execute the program with this path.
func (c *ChildReader) SetProgram(path string) { c.programPath = path }
