package cli

import (
	"bytes"
	"errors"
	"syscall"
	"unicode/utf8"
)

// pasteStart and pasteEnd are the marks of a terminal around pasted text (xterm, "Bracketed
// Paste Mode").
const (
	pasteStart = "\x1b[200~"
	pasteEnd   = "\x1b[201~"
)

// The keys that a hiddenInput does not add to the text.
const (
	ctrlC         = 0x03
	ctrlD         = 0x04
	ctrlU         = 0x15
	ctrlZ         = 0x1a
	ctrlBackslash = 0x1c
	del           = 0x7f
)

// signalKeys contains the signals that the kernel sends for keys unless ISIG is off.
var signalKeys = map[byte]syscall.Signal{ctrlC: syscall.SIGINT, ctrlBackslash: syscall.SIGQUIT, ctrlZ: syscall.SIGTSTP}

var (
	errControlKey   = errors.New("the input contains a control character, for example from a cursor key: use --file or a pipe for a value with control characters")
	errControlPaste = errors.New("the pasted text contains a control character: use --file or a pipe for a value with control characters")
)

// A hiddenInput collects the keys of a user and pasted text. Each line break (\r, \n, or \r\n)
// becomes \n, because the key Enter and most terminals send \r for a line break. Pasted
// text can contain no other control character except a tab.
type hiddenInput struct {
	text   []byte         // never grows, because growing would leave a copy in memory
	ended  bool           // after Ctrl-D; more input is an error
	signal syscall.Signal // the signal of the last key, or 0
	err    error          // the first error

	// unconfirmed is true after a line break or a paste until confirm returns the number of lines.
	unconfirmed bool

	mark    string // the received part of pasteStart or pasteEnd
	pasting bool   // between pasteStart and pasteEnd
	afterCR bool   // the last key was \r
}

// add adds a key. An error does not end the input, because the rest of a paste can follow. The input
// ends with Ctrl-D. The caller must handle in.signal before the next key.
func (in *hiddenInput) add(key byte) {
	if in.addToMark(key) {
		return
	}
	if in.mark != "" {
		in.mark = ""
		in.fail(errControlKey)
		if in.addToMark(key) {
			return
		}
	}
	afterCR := in.afterCR
	in.afterCR = key == '\r'
	switch {
	case in.pasting:
		in.addPasted(key, afterCR)
	case signalKeys[key] != 0:
		in.signal = signalKeys[key]
	case key == ctrlD:
		in.ended = true
	case in.ended:
		in.fail(errors.New("the input continues after Ctrl-D"))
	case key == '\b', key == del:
		_, size := utf8.DecodeLastRune(in.text)
		in.truncate(len(in.text) - size)
	case key == ctrlU:
		in.truncate(bytes.LastIndexByte(in.text, '\n') + 1)
	default:
		in.addText(key, afterCR)
	}
}

// addPasted adds a byte of pasted text. Ctrl-C ends the input with an error, so that a user can
// end a paste whose pasteEnd was lost.
func (in *hiddenInput) addPasted(key byte, afterCR bool) {
	if key == ctrlC {
		in.fail(errControlPaste)
		in.ended = true
	} else {
		in.addText(key, afterCR)
	}
}

// addText adds a byte of the value.
func (in *hiddenInput) addText(key byte, afterCR bool) {
	switch {
	case key == '\n' && afterCR: // the \r has already added the line break
		return
	case key == '\r', key == '\n':
		key = '\n'
		in.unconfirmed = true
	case key == del, key < ' ' && key != '\t':
		in.fail(errControlKey)
	}
	if len(in.text) < cap(in.text) {
		in.text = append(in.text, key)
	}
}

// addToMark adds a key to in.mark if the key continues pasteStart or pasteEnd. Otherwise it returns
// false.
func (in *hiddenInput) addToMark(key byte) bool {
	for _, mark := range []string{pasteStart, pasteEnd} {
		received := len(in.mark)
		if mark[:received] != in.mark || mark[received] != key {
			continue
		}
		in.mark = mark[:received+1]
		if in.mark == mark {
			in.mark, in.afterCR = "", false
			isStart := mark == pasteStart
			if isStart == in.pasting { // the pasted text itself contains a mark
				in.fail(errControlKey)
			}
			in.pasting = isStart
			in.unconfirmed = true
		}
		return true
	}
	return false
}

func (in *hiddenInput) fail(err error) {
	if err == errControlKey && in.pasting {
		err = errControlPaste
	}
	if in.err == nil {
		in.err = err
	}
}

// confirm returns the number of lines if the user has pressed Enter or pasted text since the
// last confirm, and otherwise 0.
func (in *hiddenInput) confirm() (lines int) {
	if !in.unconfirmed || in.pasting {
		return 0
	}
	in.unconfirmed = false
	lines = bytes.Count(in.text, []byte("\n"))
	if !bytes.HasSuffix(in.text, []byte("\n")) {
		lines++
	}
	return lines
}

// reset discards all input.
func (in *hiddenInput) reset() {
	in.truncate(0)
	*in = hiddenInput{text: in.text}
}

func (in *hiddenInput) truncate(size int) {
	clear(in.text[size:])
	in.text = in.text[:size]
}
