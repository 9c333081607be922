// River with the configuration of its own benchmark, `river bench`.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type Noop struct {
	I *int `json:"i,omitempty"`
}

func (Noop) Kind() string { return "noop" }

type worker struct {
	river.WorkerDefaults[Noop]
	starts func() *os.File
}

func (w *worker) Work(_ context.Context, job *river.Job[Noop]) error {
	if job.Args.I != nil {
		fmt.Fprintf(w.starts(), "%d %.7f %d\n", *job.Args.I, seconds(), os.Getpid())
	}
	return nil
}

// seconds reads CLOCK_MONOTONIC, which time.Time keeps to itself.
func seconds() float64 {
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&now)), 0)
	return float64(now.Sec) + float64(now.Nsec)/1e9
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Args[2])
	check(err)
	switch os.Args[1] {
	case "setup":
		migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
		check(err)
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
		check(err)
	case "producer":
		produce(ctx, pool)
	case "worker":
		work(ctx, pool)
	}
}

func client(pool *pgxpool.Pool, config *river.Config) *river.Client[pgx.Tx] {
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	client, err := river.NewClient(riverpgxv5.New(pool), config)
	check(err)
	return client
}

func work(ctx context.Context, pool *pgxpool.Pool) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{starts: sync.OnceValue(func() *os.File {
		file, err := os.OpenFile(os.Getenv("BENCH_STARTS"), os.O_WRONLY|os.O_APPEND, 0)
		check(err)
		return file
	})})
	// https://github.com/riverqueue/river/blob/master/cmd/river/riverbench/river_bench.go
	client := client(pool, &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
		Workers:           workers,
	})
	check(client.Start(ctx))
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	check(client.Stop(ctx))
}

func produce(ctx context.Context, pool *pgxpool.Pool) {
	client := client(pool, &river.Config{})
	insert := func(args Noop) {
		_, err := client.Insert(ctx, args, nil)
		check(err)
	}
	many := func(args Noop, count int) {
		params := make([]river.InsertManyParams, count)
		for i := range params {
			params[i].Args = args
		}
		_, err := client.InsertManyFast(ctx, params)
		check(err)
	}
	tag := 0
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var verb string
		var number int
		_, err := fmt.Sscan(lines.Text(), &verb, &number)
		check(err)
		from := seconds()
		answer := func() float64 { return seconds() - from }
		switch verb {
		case "one":
			insert(Noop{I: &number})
			answer = func() float64 { return from }
		case "submit":
			for range number {
				insert(Noop{})
			}
		case "bulk":
			many(Noop{}, number)
		case "tagged":
			many(Noop{I: &tag}, number)
		}
		fmt.Printf("%.7f\n", answer())
	}
}
