// An open-loop load generator: requests arrive by a schedule that the server cannot slow down.
//
// A closed loop sends its next request when the last one is answered, so a server that stalls is asked less while it
// stalls, and the waiting of everybody who would have come meanwhile is left out ("coordinated omission"). Here request
// n is due at start + n/rate whatever happens. It is sent on the connection that was idle longest, or waits until there
// is one; its latency is counted from the moment it was due until its last byte was read.
//
// One thread, one epoll, raw sockets: tens of thousands of requests a second beside the origin on the same core. The
// pause until the next arrival is a timerfd, because the runtime's own timers are only good to a millisecond.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const patience = 2 * time.Second // how long answers may come after the last arrival

type headers []string

func (h *headers) String() string         { return strings.Join(*h, ", ") }
func (h *headers) Set(value string) error { *h = append(*h, value); return nil }

// Report is what is printed. Latencies are microseconds.
type Report struct {
	Rate       float64   `json:"rate"`       // asked for, requests a second
	Achieved   float64   `json:"achieved"`   // answered well, a second of the schedule
	Requests   int       `json:"requests"`   // due, without the warm-up
	Errors     int       `json:"errors"`     // answers that are not 2xx, and connections lost with a request on them
	Unanswered int       `json:"unanswered"` // not answered in time; they count with the time they had waited
	Latency    Quantiles `json:"latency"`    // from due to the last byte
	Lag        Quantiles `json:"lag"`        // from due to sent where a connection was idle: this program's own lateness
	Seconds    float64   `json:"seconds"`
}

type load struct {
	epoll, timer int
	connections  []*connection
	idle         chan *connection // in the order they became idle
	address      syscall.Sockaddr
	request      []byte

	start    time.Time
	interval float64 // nanoseconds between arrivals
	next     int     // the arrival that is due next
	total    int
	warm     int // arrivals before this one are not counted
	starved  bool

	report  Report
	latency Histogram
	lag     Histogram
	well    int
}

func main() {
	rate := flag.Float64("rate", 1000, "requests a second")
	connections := flag.Int("connections", 32, "keep-alive connections")
	seconds := flag.Float64("seconds", 5, "how long is counted")
	warmup := flag.Float64("warmup", 1, "seconds before that, at the same rate")
	var more headers
	flag.Var(&more, "header", "`name: value`, any number of times")
	flag.Parse()
	if flag.NArg() != 1 || *rate <= 0 || *connections < 1 || *seconds <= 0 || *warmup < 0 {
		flag.Usage()
		os.Exit(2)
	}
	l := &load{interval: 1e9 / *rate, total: int(*rate * (*seconds + *warmup)), warm: int(*rate * *warmup)}
	check(l.aim(flag.Arg(0), more))
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // nothing is allocated once it runs
	check(l.open(*connections))
	check(l.run())
	l.report.Rate, l.report.Seconds = *rate, *seconds
	l.report.Requests = l.total - l.warm
	l.report.Achieved = float64(l.well) / *seconds
	l.report.Latency, l.report.Lag = l.latency.Quantiles(), l.lag.Quantiles()
	check(json.NewEncoder(os.Stdout).Encode(l.report))
}

// aim resolves the URL and writes the one request that is sent again and again.
func (l *load) aim(target string, more headers) error {
	parts, err := url.Parse(target)
	if err != nil {
		return err
	}
	tcp, err := net.ResolveTCPAddr("tcp4", parts.Host)
	if err != nil {
		return err
	}
	address := &syscall.SockaddrInet4{Port: tcp.Port}
	copy(address.Addr[:], tcp.IP.To4())
	l.address = address
	head := "GET " + parts.RequestURI() + " HTTP/1.1\r\n"
	if !strings.Contains(strings.ToLower("\n"+strings.Join(more, "\n")), "\nhost:") {
		head += "Host: " + parts.Host + "\r\n"
	}
	for _, line := range more {
		head += line + "\r\n"
	}
	l.request = []byte(head + "\r\n")
	return nil
}

func (l *load) open(count int) (err error) {
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return err
	}
	const monotonic = 1
	timer, _, failed := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, syscall.O_NONBLOCK, 0)
	if failed != 0 {
		return failed
	}
	l.timer, l.idle = int(timer), make(chan *connection, count)
	if err = l.watch(l.timer, -1); err != nil {
		return err
	}
	for i := 0; i < count; i++ {
		c := &connection{number: int32(i), buffer: make([]byte, 64*1024)}
		if err = l.connect(c); err != nil {
			return err
		}
		l.connections = append(l.connections, c)
		l.idle <- c
	}
	return nil
}

// connect is blocking, so that a connection is open or an error; only then reads and writes never block.
func (l *load) connect(c *connection) (err error) {
	if c.socket, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err = syscall.Connect(c.socket, l.address); err != nil {
		return err
	}
	_ = syscall.SetsockoptInt(c.socket, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err = syscall.SetNonblock(c.socket, true); err != nil {
		return err
	}
	c.filled = 0
	return l.watch(c.socket, c.number)
}

func (l *load) watch(descriptor int, number int32) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: number}
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, descriptor, &event)
}

func (l *load) due(n int) time.Duration { return time.Duration(float64(n) * l.interval) }

func (l *load) run() error {
	events := make([]syscall.EpollEvent, len(l.connections)+1)
	l.start = time.Now()
	end := l.due(l.total) + patience
	for {
		now := time.Since(l.start)
		if err := l.send(now); err != nil {
			return err
		}
		now = time.Since(l.start)
		if (l.next == l.total && len(l.idle) == len(l.connections)) || now > end {
			break
		}
		if l.next < l.total && len(l.idle) > 0 {
			l.wake(l.due(l.next) - now)
		}
		ready, err := syscall.EpollWait(l.epoll, events, 100)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for i := 0; i < ready; i++ {
			if events[i].Fd < 0 {
				var spent [8]byte
				_, _ = syscall.Read(l.timer, spent[:])
			} else if err := l.read(l.connections[events[i].Fd]); err != nil {
				return err
			}
		}
	}
	l.settle(time.Since(l.start))
	return nil
}

// send puts every request that is due on an idle connection, as far as there are any.
func (l *load) send(now time.Duration) error {
	for l.next < l.total && len(l.idle) > 0 && l.due(l.next) <= now {
		c := <-l.idle
		c.arrival, c.busy = l.next, true
		if l.next >= l.warm && !l.starved {
			l.lag.Add(now - l.due(l.next))
		}
		l.next++
		written, err := syscall.Write(c.socket, l.request)
		if err != nil || written != len(l.request) {
			if err := l.lost(c); err != nil {
				return err
			}
		}
		now = time.Since(l.start)
	}
	// What is due and finds every connection busy waits for the server, not for this program.
	l.starved = len(l.idle) == 0
	return nil
}

func (l *load) read(c *connection) error {
	got, err := syscall.Read(c.socket, c.buffer[c.filled:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return nil
	}
	if err != nil || got <= 0 {
		return l.lost(c)
	}
	c.filled += got
	answer, err := c.answer()
	if err != nil {
		return l.lost(c)
	}
	if answer == nil {
		return nil
	}
	if !c.busy {
		return fmt.Errorf("an answer that nobody asked for")
	}
	l.over(c, time.Since(l.start), answer.status/100 == 2)
	if answer.closes {
		return l.again(c)
	}
	l.idle <- c
	return nil
}

// over counts the request of a connection.
func (l *load) over(c *connection, now time.Duration, well bool) {
	c.busy = false
	if c.arrival < l.warm {
		return
	}
	l.latency.Add(now - l.due(c.arrival))
	if well {
		l.well++
	} else {
		l.report.Errors++
	}
}

// lost is a connection that ended or says nonsense; a request that was on it has failed.
func (l *load) lost(c *connection) error {
	if c.busy {
		l.over(c, time.Since(l.start), false)
		return l.again(c)
	}
	for range l.connections[:len(l.idle)] {
		if other := <-l.idle; other != c {
			l.idle <- other
		}
	}
	return l.again(c)
}

func (l *load) again(c *connection) error {
	_ = syscall.Close(c.socket)
	if err := l.connect(c); err != nil {
		return err
	}
	l.idle <- c
	return nil
}

// wake sets the timer; a moment that has passed fires at once.
func (l *load) wake(pause time.Duration) {
	if pause < 1 {
		pause = 1
	}
	var setting [4]int64 // struct itimerspec: interval, then value, seconds and nanoseconds each
	setting[2], setting[3] = int64(pause/time.Second), int64(pause%time.Second)
	_, _, _ = syscall.RawSyscall6(
		syscall.SYS_TIMERFD_SETTIME, uintptr(l.timer), 0, uintptr(unsafe.Pointer(&setting)), 0, 0, 0,
	)
}

// settle counts what was never answered, sent or not, with the time it has waited until now: a lower bound.
func (l *load) settle(now time.Duration) {
	late := func(n int) {
		if n >= l.warm {
			l.latency.Add(now - l.due(n))
			l.report.Unanswered++
		}
	}
	for _, c := range l.connections {
		if c.busy {
			late(c.arrival)
		}
	}
	for ; l.next < l.total; l.next++ {
		late(l.next)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "openloop:", err)
		os.Exit(1)
	}
}
