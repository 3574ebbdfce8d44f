// Command classify asks the demo model what is in a picture: `classify [-url http://localhost:8000] PICTURE.png`.
package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"os"
	"slices"
	"time"

	kingpole "github.com/kingpole/kingpole/clients/go"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	url := flag.String("url", "http://localhost:8000", "where the server is")
	model := flag.String("model", "efficientnet-lite0", "a model that takes raw RGB pictures")
	labelsPath := flag.String("labels", "", "a file with one label a line: server/kingpole/demo/labels.txt")
	flag.Parse()
	if flag.NArg() != 1 {
		return fmt.Errorf("usage: classify [-url URL] [-model MODEL] [-labels FILE] PICTURE")
	}
	labels, err := readLabels(*labelsPath)
	if err != nil {
		return err
	}
	client, err := kingpole.Connect(*url, kingpole.WithTimeout(10*time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	probabilities, err := classify(context.Background(), client, *model, flag.Arg(0))
	if err != nil {
		return err
	}
	order := make([]int, len(probabilities))
	for index := range order {
		order[index] = index
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(probabilities[b], probabilities[a]) })
	for _, index := range order[:min(5, len(order))] {
		label := fmt.Sprintf("class %d", index)
		if index < len(labels) {
			label = labels[index]
		}
		fmt.Printf("%6.2f%%  %s\n", 100*probabilities[index], label)
	}
	return nil
}

func classify(ctx context.Context, client *kingpole.Client, model, path string) ([]float32, error) {
	metadata, err := client.Metadata(ctx, model, "")
	if err != nil {
		return nil, err
	}
	wanted := metadata.Inputs[0]
	if wanted.Datatype != kingpole.Uint8 || len(wanted.Shape) != 4 || wanted.Shape[3] != 3 {
		return nil, fmt.Errorf("%s takes %s %v, which is no raw RGB picture", model, wanted.Datatype, wanted.Shape)
	}
	height, width := wanted.Shape[1], wanted.Shape[2]
	pixels, err := readPicture(path, int(height), int(width))
	if err != nil {
		return nil, err
	}
	response, err := client.Infer(ctx, &kingpole.Request{
		Model: model, Inputs: []kingpole.Tensor{kingpole.NewTensor(wanted.Name, pixels, 1, height, width, 3)},
	})
	if err != nil {
		return nil, err
	}
	return kingpole.Values[float32](response.Outputs[0])
}

// readPicture returns the picture's middle as raw RGB; each pixel is the mean of those that it stands for.
func readPicture(path string, height, width int) ([]uint8, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	picture, _, err := image.Decode(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	side := min(picture.Bounds().Dx(), picture.Bounds().Dy())
	left := picture.Bounds().Min.X + (picture.Bounds().Dx()-side)/2
	top := picture.Bounds().Min.Y + (picture.Bounds().Dy()-side)/2
	pixels := make([]uint8, 0, height*width*3)
	for row := range height {
		for column := range width {
			pixels = append(pixels, mean(picture,
				left+column*side/width, left+max((column+1)*side/width, column*side/width+1),
				top+row*side/height, top+max((row+1)*side/height, row*side/height+1))...)
		}
	}
	return pixels, nil
}

func mean(picture image.Image, left, right, top, bottom int) []uint8 {
	var red, green, blue, count uint64
	for y := top; y < bottom; y++ {
		for x := left; x < right; x++ {
			r, g, b, _ := picture.At(x, y).RGBA()
			red, green, blue, count = red+uint64(r>>8), green+uint64(g>>8), blue+uint64(b>>8), count+1
		}
	}
	return []uint8{uint8(red / count), uint8(green / count), uint8(blue / count)}
}

func readLabels(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var labels []string
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		labels = append(labels, scanner.Text())
	}
	return labels, scanner.Err()
}
