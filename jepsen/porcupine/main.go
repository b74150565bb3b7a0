// Judges histories of one log by porcupine's search of all orders, as a second opinion on our checker.
//
// Reads the directory that it is given: every file in it is a history as JSON lines, as jepsen writes them. Prints
// for each file its name and what porcupine says: legal, illegal, or unknown if that took too long. Judges what
// clients were told of a log that begins at 0: appends, batches, reads, tails and the final read.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	patience     = 10 * time.Second
	lineBytesMax = 1 << 20
	never        = math.MaxInt64
	// Stands for the value of an index that Raft took for itself, and for a batch that can never be whole.
	nobody = math.MaxUint64
)

// One line of a history; of other types than "operation" only the type counts.
type line struct {
	Type    string      `json:"type"`
	Call    int64       `json:"call"`
	Ret     *int64      `json:"ret"`
	Outcome string      `json:"outcome"`
	Kind    string      `json:"kind"`
	Value   uint64      `json:"value"`
	Values  []uint64    `json:"values"`
	Index   *uint64     `json:"index"`
	From    uint64      `json:"from"`
	To      uint64      `json:"to"`
	Records [][2]uint64 `json:"records"`
	Bound   *uint64     `json:"bound"`
}

// One step that takes effect at one moment.
type step interface {
	apply(s state) (bool, state)
}

// The log: eight bytes for each entry, and the last record if the rest of its batch has to follow.
type state struct {
	entries string
	torn    uint64
	isTorn  bool
}

func (s state) end() uint64 { return uint64(len(s.entries)) / 8 }

func (s state) push(value uint64) state {
	s.entries = string(binary.LittleEndian.AppendUint64([]byte(s.entries), value))
	return s
}

// True if exactly these records lie in from..to.
func (s state) holds(from, to uint64, records [][2]uint64) bool {
	seen := 0
	for index := from; index < to; index++ {
		value := binary.LittleEndian.Uint64([]byte(s.entries[index*8 : index*8+8]))
		if value == nobody {
			continue
		}
		if seen == len(records) || records[seen] != [2]uint64{index, value} {
			return false
		}
		seen++
	}
	return seen == len(records)
}

// Appends a value, behind the one that precedes it in its batch.
type appendOne struct {
	value uint64
	at    *uint64
	after *uint64
	last  bool
}

func (a appendOne) apply(s state) (bool, state) {
	end := s.end()
	follows := s.isTorn == (a.after != nil) && (a.after == nil || s.torn == *a.after)
	s = s.push(a.value)
	if follows {
		s.isTorn, s.torn = !a.last, 0
		if s.isTorn {
			s.torn = a.value
		}
	} else {
		s.isTorn, s.torn = true, nobody
	}
	if a.at == nil {
		// Nobody knows whether it took effect. It may do so behind all others, where it harms none.
		return true, s
	}
	return follows && *a.at == end, s
}

// Raft takes an index for itself.
type blank struct{}

func (blank) apply(s state) (bool, state) {
	s = s.push(nobody)
	if s.isTorn {
		s.torn = nobody
	}
	return true, s
}

// Tells one past the last index.
type tail struct{ bound uint64 }

func (t tail) apply(s state) (bool, state) { return t.bound == s.end(), s }

// Reads from..to, which is committed by then.
type prefix struct{ line }

func (p prefix) apply(s state) (bool, state) {
	from := min(p.From, p.To)
	return p.To <= s.end() && s.holds(from, p.To, p.Records), s
}

// Reads everything.
type all struct{ line }

func (a all) apply(s state) (bool, state) {
	return !s.isTorn && a.To == s.end() && s.holds(0, a.To, a.Records), s
}

var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, input, _ any) (bool, any) { return input.(step).apply(s.(state)) },
}

// The steps of one line.
func steps(l line) []step {
	ok := l.Outcome == "ok"
	switch {
	case l.Kind == "append" || l.Kind == "append_batch":
		values := l.Values
		if l.Kind == "append" {
			values = []uint64{l.Value}
		}
		var parts []step
		for position, value := range values {
			part := appendOne{value: value, last: position+1 == len(values)}
			if ok && l.Index != nil {
				at := *l.Index + uint64(position)
				part.at = &at
			}
			if position > 0 {
				part.after = &values[position-1]
			}
			parts = append(parts, part)
		}
		return parts
	case l.Kind == "read" && ok:
		parts := []step{prefix{l}}
		if l.Bound != nil {
			parts = append(parts, tail{*l.Bound})
		}
		return parts
	case l.Kind == "tail" && ok && l.Bound != nil:
		return []step{tail{*l.Bound}}
	case l.Kind == "final_read" && ok:
		return []step{all{l}}
	}
	return nil
}

// A blank for each index that the final read did not show.
func blanks(l line) []porcupine.Operation {
	seen := map[uint64]bool{}
	for _, record := range l.Records {
		seen[record[0]] = true
	}
	var gaps []porcupine.Operation
	for index := uint64(0); index < l.To; index++ {
		if !seen[index] {
			gaps = append(gaps, porcupine.Operation{Input: blank{}, Call: 0, Return: never})
		}
	}
	return gaps
}

func read(path string) ([]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var operations []porcupine.Operation
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if l.Type != "operation" || l.Outcome == "fail" {
			continue
		}
		if l.Kind == "final_read" {
			operations = append(operations, blanks(l)...)
		}
		ret := int64(never)
		if l.Outcome == "ok" && l.Ret != nil {
			ret = *l.Ret
		}
		for _, s := range steps(l) {
			operations = append(operations, porcupine.Operation{Input: s, Call: l.Call, Return: ret})
		}
	}
	return operations, lines.Err()
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: porcupine <directory of histories>")
	}
	paths, err := filepath.Glob(filepath.Join(os.Args[1], "*.jsonl"))
	if err != nil {
		log.Fatal(err)
	}
	verdicts := map[porcupine.CheckResult]string{
		porcupine.Ok: "legal", porcupine.Illegal: "illegal", porcupine.Unknown: "unknown",
	}
	for _, path := range paths {
		operations, err := read(path)
		if err != nil {
			log.Fatal(err)
		}
		result := porcupine.CheckOperationsTimeout(model, operations, patience)
		fmt.Println(filepath.Base(path), verdicts[result])
	}
}
