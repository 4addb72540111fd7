package store

// Parse exports parse for the tests in package store_test.
func (f Format) Parse(text []byte) (Set, error) { return f.parse(text) }

// SetProgram makes the child processes of c execute the program with this path.
func (c *ChildReader) SetProgram(path string) { c.programPath = path }
